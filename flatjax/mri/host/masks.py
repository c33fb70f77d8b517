"""Cartesian sampling masks, drawn on the host with numpy.

`make_mask` is the one entry point. Line kinds give `[1, kx]`: phase encoding runs along the last
axis and every row of k-space shares the mask. Plane kinds give `[ky, kx]`. The zero frequency
sits at index n // 2 of each axis (centered k-space).

`random`, `equispaced`, `equispaced_fraction` and `magic` equal, bit for bit and seed by seed, the
mask functions of the PyPI package fastmri 0.3.0 for one (center_fraction, acceleration) pair:
RandomMaskFunc, EquiSpacedMaskFunc, EquispacedMaskFractionFunc and MagicMaskFunc.
"""

import math
import operator
from collections.abc import Sequence
from numbers import Real

import numpy as np

from flatjax.errors import InputError
from flatjax.mri.host.patterns import FASTMRI_KINDS, KINDS, LINE_KINDS, Plan
from flatjax.mri.sampling import central, valid_columns


def make_mask(
    kind: str,
    shape: tuple[int, int],
    acceleration: float,
    center_fraction: float,
    seed: int | Sequence[int],
    padding: tuple[int, int] | None = None,
) -> np.ndarray:
    """Draws one sampling mask.

    Args:
        kind: a key of `KINDS`.
        shape: (ky, kx), the size of k-space. Line kinds use kx only.
        acceleration: nominal R >= 1, total points per sampled point, the center included. A whole
            number for `equispaced` and `magic`. R = 1 gives ones for every kind.
        center_fraction: the part of all points, in [0, 1), that the fully sampled center
            covers; see `center_mask`. 0 means no center.
        seed: an int, or a sequence of ints such as `seed_from_name(file_name)` or
            (seed, epoch, index); everything that `numpy.random.RandomState` takes, except None.
        padding: (left, right); only columns left <= i < right are acquired. The four fastMRI kinds
            are drawn on the full width and then cut, as fastMRI does; the others meet R on the
            acquired columns. None means all columns.

    Returns:
        `[1, kx]` or `[ky, kx]` float32 of 0 and 1. How close it comes to R:
        `gaussian1d`, `gaussian2d` and `poisson` sample round(points / R) points exactly; the
        radial kinds take whole spokes, so they are off by up to half a spoke; `random` meets R on
        average; `equispaced_fraction` nearly; `equispaced` and `magic` add their center to every
        R-th line and stay below R. `achieved_acceleration` tells.

    Raises:
        InputError: an argument is outside what is described here, or the center alone holds more
            points than R allows.
    """
    acceleration, center, acquired, drawn_on = _prepared(kind, shape, acceleration,
                                                         center_fraction, padding)
    rng = _rng(seed)
    if acceleration == 1:
        return acquired.astype(np.float32)
    mask = KINDS[kind](Plan(acceleration, center, drawn_on, rng)) | center
    return (mask & acquired).astype(np.float32)


def check_mask(kind: str, shape: tuple[int, int], acceleration: float,
               center_fraction: float) -> None:
    """Refuse what `make_mask` would refuse, without drawing a mask.

    Raises:
        InputError: from `make_mask`.
    """
    _prepared(kind, shape, acceleration, center_fraction)


def seed_from_name(name: str) -> tuple[int, ...]:
    """The seed that fastMRI evaluates a file with: its characters' code points, a tuple of ints.

    fastMRI passes the name with its extension and without its folder. Two files of one name in
    two folders get one mask, unless the folder is part of `name`.
    """
    if not isinstance(name, str) or not name:
        raise InputError(
            f"seed_from_name got {name!r}, expected a file name that is not empty; "
            "pass for example path.name"
        )
    return tuple(map(ord, name))


def center_mask(kind: str, shape: tuple[int, int], center_fraction: float) -> np.ndarray:
    """The fully sampled center of a kind, `[1, kx]` or `[ky, kx]` bool, padding not applied.

    Line kinds, and planes of one row: round(kx * center_fraction) lines, as in fastMRI. Other
    planes: a box of about center_fraction of the area, round(n * sqrt(center_fraction)) points
    along each axis, at least one where center_fraction > 0. All hold the zero frequency unless
    they are empty.
    """
    ky, kx = shape
    if kind in LINE_KINDS or ky == 1:
        return _span(kx, round(kx * center_fraction))[None, :]
    rows, columns = (plane_side(n, center_fraction) for n in (ky, kx))
    return _span(ky, rows)[:, None] & _span(kx, columns)[None, :]


def plane_side(size: int, center_fraction: float) -> int:
    """Points along an axis of the center that masks over the plane sample, see `center_mask`."""
    return max(round(size * math.sqrt(center_fraction)), 1) if center_fraction > 0 else 0


def _span(size: int, length: int) -> np.ndarray:
    inside = np.zeros(size, bool)
    inside[central(size, length)] = True
    return inside


def _rng(seed: int | Sequence[int]) -> np.random.RandomState:
    try:
        if seed is None:
            raise TypeError("None draws another mask at every call")
        return np.random.RandomState(seed)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"seed is {seed!r} ({error}), expected an int or a non-empty sequence of ints, each "
            "in [0, 2**32); pass for example 0 or seed_from_name(file_name)"
        ) from None


def _prepared(kind: str, shape: Sequence[int], acceleration: float, center_fraction: float,
              padding: tuple[int, int] | None = None
              ) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
    """R, a whole number where it must be; the center, what is acquired, and what is drawn on."""
    size, acceleration = _checked(kind, shape, acceleration, center_fraction)
    center = center_mask(kind, size, center_fraction)
    acquired = np.broadcast_to(valid_columns(size[1], padding), center.shape)
    drawn_on = np.ones_like(acquired) if kind in FASTMRI_KINDS else acquired
    if acceleration != 1:
        _check_budget(kind, acceleration, center_fraction, center & drawn_on, drawn_on)
    return acceleration, center, acquired, drawn_on


def _checked(kind: str, shape: Sequence[int], acceleration: float,
             center_fraction: float) -> tuple[tuple[int, int], float]:
    if kind not in KINDS:
        raise InputError(f"unknown mask kind {kind!r}; use one of {', '.join(KINDS)}")
    try:
        ky, kx = (operator.index(n) for n in shape)
    except (TypeError, ValueError):
        ky, kx = 0, 0
    if ky < 1 or kx < 1:
        raise InputError(
            f"mask shape is {shape!r}, expected two positive ints (ky, kx); "
            "pass the last two sizes of k-space"
        )
    if not (isinstance(acceleration, Real) and 1 <= acceleration < math.inf):
        raise InputError(
            f"acceleration is {acceleration!r}, expected a finite number >= 1; "
            "1 samples everything, 4 a quarter"
        )
    if not (isinstance(center_fraction, Real) and 0 <= center_fraction < 1):
        raise InputError(
            f"center_fraction is {center_fraction!r}, expected 0 <= center_fraction < 1; "
            "0.08 is customary at acceleration 4, 0.04 at 8"
        )
    if kind in ("equispaced", "magic"):
        if acceleration != round(acceleration):
            raise InputError(
                f"acceleration is {acceleration}, but {kind!r} takes every R-th line and needs a "
                "whole number; round it, or use 'equispaced_fraction'"
            )
        acceleration = round(acceleration)
    return (ky, kx), acceleration


def _check_budget(kind: str, acceleration: float, center_fraction: float, center: np.ndarray,
                  valid: np.ndarray) -> None:
    if kind == "magic" and center_fraction >= 1 / acceleration:
        raise InputError(
            f"center_fraction is {center_fraction}, but 'magic' at acceleration {acceleration} "
            f"needs less than 1/{acceleration} = {1 / acceleration:.4g}; lower either of the two"
        )
    held, budget = int(center.sum()), valid.sum() / acceleration
    if kind not in ("equispaced", "magic") and held > budget:
        unit = "lines" if kind in LINE_KINDS else "points"
        raise InputError(
            f"the center of a {kind!r} mask holds {held} {unit} (center_fraction "
            f"{center_fraction}), but acceleration {acceleration} allows {budget:.1f} of "
            f"{valid.sum()}; lower center_fraction or the acceleration"
        )
