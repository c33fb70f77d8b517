"""The sampling pattern of each kind of mask, outside its fully sampled center.

A pattern is a function of a `Plan`. It may take samples of the center again; `masks.make_mask`
joins both. `random`, `equispaced`, `equispaced_fraction` and `magic` draw what fastMRI draws.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from flatjax.mri.host.poisson import poisson_disc
from flatjax.mri.sampling import distance_from_center

# Standard deviation of the Gaussian kinds, where 1 is the distance from the center to an edge.
GAUSSIAN_WIDTH = 0.4
GOLDEN_ANGLE = math.pi * (math.sqrt(5.0) - 1.0) / 2.0


class Plan(NamedTuple):
    """What a pattern is drawn from.

    Attributes:
        acceleration: nominal R above 1, whole for `equispaced` and `magic`.
        center: the fully sampled center, `[1, kx]` or `[ky, kx]` bool.
        valid: where samples may lie, shaped like `center`.
        rng: source of randomness.
    """

    acceleration: float
    center: np.ndarray
    valid: np.ndarray
    rng: np.random.RandomState

    @property
    def outside(self) -> int:
        """Number of samples that R leaves for outside the center."""
        held = int((self.center & self.valid).sum())
        return max(round(self.valid.sum() / self.acceleration), 1) - held


Pattern = Callable[[Plan], np.ndarray]


def _random(plan: Plan) -> np.ndarray:
    width, low = plan.center.size, int(plan.center.sum())
    probability = (width / plan.acceleration - low) / (width - low)
    return (plan.rng.uniform(size=width) < probability)[None, :]


def _equispaced(plan: Plan) -> np.ndarray:
    spacing = int(plan.acceleration)
    offset = plan.rng.randint(0, spacing)
    return (np.arange(plan.center.size) % spacing == offset)[None, :]


def _equispaced_fraction(plan: Plan) -> np.ndarray:
    width, low = plan.center.size, int(plan.center.sum())
    lines = np.zeros((1, width), bool)
    outside = width - low * plan.acceleration
    if outside > 0:
        spacing = plan.acceleration * (width - low) / outside
        offset = plan.rng.randint(0, round(spacing))
        # The reference stops short of the last column; drawing it would change its masks.
        columns = np.rint(np.arange(offset, width - 1, spacing)).astype(int)
        lines[:, columns] = True
    return lines


def _magic(plan: Plan) -> np.ndarray:
    """Offset sampling (Defazio, arXiv 1912.01101): the two halves interleave under conjugation."""
    width, spacing = plan.center.size, int(plan.acceleration)
    offset = plan.rng.randint(0, spacing)
    first_right, first_left = (offset + 2, offset - 1) if offset % 2 else (offset + 1, offset + 2)
    right = np.arange(first_right, (width + 1) // 2, spacing)
    left = -1 - np.arange(first_left, width // 2, spacing)
    lines = np.zeros((1, width), bool)
    lines[0, width // 2 + np.concatenate([left, right])] = True
    return lines


def _gaussian(plan: Plan) -> np.ndarray:
    """Draws without replacement, weighted by a Gaussian around the center (Gumbel top-k)."""
    shape = plan.center.shape
    log_density = -(distance_from_center(shape) ** 2) / (2 * GAUSSIAN_WIDTH**2)
    keys = plan.rng.gumbel(size=shape) + log_density
    keys[plan.center | ~plan.valid] = -np.inf
    mask = np.zeros(shape, bool)
    mask.flat[np.argsort(-keys, axis=None, kind="stable")[:plan.outside]] = True
    return mask


def _poisson(plan: Plan) -> np.ndarray:
    return poisson_disc(plan.valid & ~plan.center, plan.outside, plan.rng)[0]


def _radial_golden(plan: Plan) -> np.ndarray:
    return _radial(plan, lambda n: GOLDEN_ANGLE)


def _radial_uniform(plan: Plan) -> np.ndarray:
    return _radial(plan, lambda n: math.pi / n)


def _radial(plan: Plan, angle_between: Callable[[int], float]) -> np.ndarray:
    """The number of whole spokes whose samples, center included, come nearest to R's."""
    shape = plan.center.shape
    first_angle = plan.rng.uniform(0, math.pi)
    target = plan.valid.sum() / plan.acceleration

    def draw(spokes: int) -> np.ndarray:
        return _spokes(shape, first_angle + angle_between(spokes) * np.arange(spokes))

    def surplus(spokes: int) -> float:
        return ((draw(spokes) | plan.center) & plan.valid).sum() - target

    # Past 8 n spokes, every point of an n x n grid lies on one.
    few, many = 1, 8 * max(shape)
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (middle, many) if surplus(middle) <= 0 else (few, middle)
    return draw(min(few, many, key=lambda spokes: abs(surplus(spokes))))


def _spokes(shape: tuple[int, ...], angles: np.ndarray) -> np.ndarray:
    """Full-length lines through the zero frequency, snapped to the grid, `[ky, kx]` bool."""
    direction = np.stack([np.sin(angles), np.cos(angles)])
    # With the longer component at 1, a line meets every row or every column once: no gaps.
    direction /= np.abs(direction).max(axis=0)
    steps = np.arange(-(max(shape) // 2), max(shape) // 2 + 1)
    from_center = np.rint(direction[:, :, None] * steps).astype(int)
    row, column = from_center[0] + shape[0] // 2, from_center[1] + shape[1] // 2
    inside = (row >= 0) & (row < shape[0]) & (column >= 0) & (column < shape[1])
    mask = np.zeros(shape, bool)
    mask[row[inside], column[inside]] = True
    return mask


FASTMRI_KINDS: dict[str, Pattern] = {
    "random": _random,
    "equispaced": _equispaced,
    "equispaced_fraction": _equispaced_fraction,
    "magic": _magic,
}
LINE_KINDS: dict[str, Pattern] = {**FASTMRI_KINDS, "gaussian1d": _gaussian}
PLANE_KINDS: dict[str, Pattern] = {
    "gaussian2d": _gaussian,
    "poisson": _poisson,
    "radial": _radial_golden,
    "radial_uniform": _radial_uniform,
}
KINDS: dict[str, Pattern] = {**LINE_KINDS, **PLANE_KINDS}
