"""The sampling pattern of each kind of mask, outside its fully sampled center.

A pattern is a function of a `Plan`. It may take samples of the center again; `masks.make_mask`
joins both. `random`, `equispaced`, `equispaced_fraction` and `magic` draw what fastMRI draws.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from flatjax.mri.sampling import distance_from_center

_GAUSSIAN_WIDTH = 0.4  # standard deviation, where 1 is the distance from the center to an edge
POISSON_GROWTH = 2.0  # of the Poisson disc's radius from the center to an edge
_GOLDEN_ANGLE = math.pi * (math.sqrt(5.0) - 1.0) / 2.0


class Plan(NamedTuple):
    """What a pattern is drawn from: R, the center and where samples may lie, both bool."""

    acceleration: float
    center: np.ndarray  # [1, kx] or [ky, kx]
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
    mask = np.zeros(plan.center.shape, bool)
    log_density = -(distance_from_center(mask.shape) ** 2) / (2 * _GAUSSIAN_WIDTH**2)
    keys = plan.rng.gumbel(size=mask.shape) + log_density
    keys[plan.center | ~plan.valid] = -np.inf
    mask.flat[np.argsort(-keys, axis=None, kind="stable")[:plan.outside]] = True
    return mask


def _radial(plan: Plan, *, golden: bool) -> np.ndarray:
    """The number of whole spokes whose samples, center included, come nearest to R's.

    They are turned by the golden angle each, or lie evenly over half a turn.
    """
    first_angle = plan.rng.uniform(0, math.pi)
    target = plan.valid.sum() / plan.acceleration

    def draw(spokes: int) -> np.ndarray:
        between = _GOLDEN_ANGLE if golden else math.pi / spokes
        return _spokes(plan.center.shape, first_angle + between * np.arange(spokes))

    def surplus(spokes: int) -> float:
        return ((draw(spokes) | plan.center) & plan.valid).sum() - target

    # Past 8 n spokes, every point of an n x n grid lies on one.
    few, many = 1, 8 * max(plan.center.shape)
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (middle, many) if surplus(middle) <= 0 else (few, middle)
    return draw(min(few, many, key=lambda spokes: abs(surplus(spokes))))


def _spokes(shape: tuple[int, ...], angles: np.ndarray) -> np.ndarray:
    """Full-length lines through the zero frequency, snapped to the grid, `[ky, kx]` bool."""
    direction = np.stack([np.sin(angles), np.cos(angles)])
    # With the longer component at 1, a line meets every row or every column once: no gaps.
    direction /= np.abs(direction).max(axis=0)
    half = max(shape) // 2
    row, column = np.rint(direction[:, :, None] * np.arange(-half, half + 1)).astype(int) + half
    square = np.zeros((2 * half + 1, 2 * half + 1), bool)
    square[row, column] = True
    top, left = (half - n // 2 for n in shape)
    return square[top:top + shape[0], left:left + shape[1]]


def poisson_disc(allowed: np.ndarray, count: int,
                 rng: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
    """Variable-density Poisson disc on the grid, by dart throwing.

    Any two chosen points p and q are at least min(radius[p], radius[q]) apart, in grid steps. The
    radius is a scale times 1 + POISSON_GROWTH * d, with d the distance from the center, 1 at
    the edges. The scale is searched until the darts leave at most 1 % too many points, and
    the surplus is dropped at random, which keeps every distance.

    Points may lie where `allowed` `[ky, kx]` is True. It gives the mask `[ky, kx]` bool with
    exactly `count` points, and the radius `[ky, kx]` float64.
    """
    relative = 1 + POISSON_GROWTH * distance_from_center(allowed.shape)
    order = rng.permutation(np.flatnonzero(allowed))
    mask = np.zeros(allowed.shape, bool)
    enough, too_few = 1 / relative.max(), math.inf
    chosen, radius = order, enough * relative
    # 0.7 / r^2 is the density at which darts of spacing r jam in the plane.
    scale = math.sqrt(0.7 * np.sum(relative[allowed] ** -2) / max(count, 1))
    for _ in range(24):
        if len(chosen) <= 1.01 * count or count == 0:
            break
        if not enough < scale < too_few:
            scale = math.sqrt(enough * too_few) if too_few < math.inf else 2 * enough
        darts = _throw(order, scale * relative)
        if len(darts) >= count:
            enough, chosen, radius = scale, darts, scale * relative
        else:
            too_few = scale
        scale *= math.sqrt(max(len(darts), 1) / (1.005 * count))
    mask.flat[rng.permutation(chosen)[:count]] = True
    return mask, radius


def _throw(order: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Takes the points of `order`, flat indices, one by one unless a taken one blocks them."""
    rows, columns = radius.shape
    squared = np.ceil(np.minimum(radius, max(rows, columns) * 2.0) ** 2)
    reach = math.isqrt(int(squared.max())) + 1
    steps = np.arange(-reach, reach + 1)
    distances = steps[:, None] ** 2 + steps**2
    blocked = np.zeros((rows + 2 * reach, columns + 2 * reach), bool)  # with margins
    taken = []
    for point, limit in zip(order.tolist(), squared.flat[order].tolist(), strict=True):
        row, column = divmod(point, columns)
        if not blocked[row + reach, column + reach]:
            taken.append(point)
            blocked[row:row + len(steps), column:column + len(steps)] |= distances < limit
    return np.array(taken, int)


FASTMRI_KINDS: dict[str, Pattern] = {
    "random": _random, "equispaced": _equispaced, "equispaced_fraction": _equispaced_fraction,
    "magic": _magic}
LINE_KINDS: dict[str, Pattern] = {**FASTMRI_KINDS, "gaussian1d": _gaussian}
PLANE_KINDS: dict[str, Pattern] = {
    "gaussian2d": _gaussian,
    "poisson": lambda plan: poisson_disc(plan.valid & ~plan.center, plan.outside, plan.rng)[0],
    "radial": partial(_radial, golden=True), "radial_uniform": partial(_radial, golden=False)}
KINDS: dict[str, Pattern] = {**LINE_KINDS, **PLANE_KINDS}
WHOLE_KINDS = ("equispaced", "magic")  # that need a whole R
