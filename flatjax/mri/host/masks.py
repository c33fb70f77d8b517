"""Cartesian sampling masks, drawn on the host with numpy.

Line kinds give `[1, kx]`: phase encoding runs along the last axis and every row of k-space shares
the mask. Plane kinds give `[ky, kx]`. The zero frequency sits at index n // 2 of each axis.

`random`, `equispaced`, `equispaced_fraction` and `magic` equal, bit for bit and seed by seed, the
mask functions of the PyPI package fastmri 0.3.0 for one (center_fraction, acceleration) pair:
RandomMaskFunc, EquiSpacedMaskFunc, EquispacedMaskFractionFunc and MagicMaskFunc.
"""

import math
from collections.abc import Sequence

import numpy as np

from flatjax.errors import InputError, check_choice
from flatjax.mri.host.patterns import FASTMRI_KINDS, KINDS, LINE_KINDS, WHOLE_KINDS, Plan
from flatjax.mri.sampling import central, valid_columns


def make_mask(kind: str, shape: tuple[int, int], acceleration: float, center_fraction: float,
              seed: int | Sequence[int], padding: tuple[int, int] | None = None) -> np.ndarray:
    """Draw one sampling mask, `[1, kx]` or `[ky, kx]` float32 of 0 and 1.

    `gaussian1d`, `gaussian2d` and `poisson` sample round(points / R) points exactly; the radial
    kinds take whole spokes, so they are off by up to half a spoke; `random` meets R on average;
    `equispaced_fraction` nearly; `equispaced` and `magic` add their center to every R-th line and
    stay below R. `achieved_acceleration` tells.

    Args:
        kind: a key of `KINDS`.
        shape: (ky, kx), the size of k-space. Line kinds use kx only.
        acceleration: nominal R >= 1, total points per sampled point, the center included. A whole
            number for `equispaced` and `magic`. R = 1 gives ones for every kind.
        center_fraction: part of all points, in [0, 1), in the center, see `center_mask`.
        seed: of `numpy.random.RandomState`, such as an int or `seed_from_name(file_name)`.
        padding: (left, right); only columns left <= i < right are acquired, by default all. The
            four fastMRI kinds are drawn on the full width and then cut, as fastMRI does; the
            others meet R on the acquired columns.

    Raises:
        InputError: another kind, R or center_fraction than described here, or a center that alone
            holds more points than R allows.
    """
    center = center_mask(kind, shape, center_fraction)
    acquired = np.broadcast_to(valid_columns(shape[1], padding), center.shape)
    drawn_on = np.ones_like(acquired) if kind in FASTMRI_KINDS else acquired
    _check(kind, acceleration, center_fraction, center, drawn_on)
    mask = acquired
    if acceleration != 1:
        plan = Plan(acceleration, center, drawn_on, np.random.RandomState(seed))
        mask = (KINDS[kind](plan) | center) & acquired
    return mask.astype(np.float32)


def check_mask(kind: str, shape: tuple[int, int], acceleration: float,
               center_fraction: float) -> None:
    """Raise the InputError that `make_mask` would raise, without drawing a mask."""
    center = center_mask(kind, shape, center_fraction)
    _check(kind, acceleration, center_fraction, center, np.ones_like(center))


def seed_from_name(name: str) -> tuple[int, ...]:
    """The seed that fastMRI evaluates a file with: the code points of its name, without folder."""
    return tuple(map(ord, name))


def center_mask(kind: str, shape: tuple[int, int], center_fraction: float) -> np.ndarray:
    """The fully sampled center of a kind, `[1, kx]` or `[ky, kx]` bool, padding not applied.

    Line kinds, and planes of one row: round(kx * center_fraction) lines, as in fastMRI. Other
    planes: a box of that part of the area, `plane_side` points along each axis. All hold the zero
    frequency unless they are empty. InputError for another kind or fraction.
    """
    check_choice("mask", kind, KINDS)
    if not 0 <= center_fraction < 1:
        raise InputError(f"center_fraction is {center_fraction}, expected 0 <= center_fraction < 1;"
                         " 0.08 is customary at acceleration 4, 0.04 at 8")
    if kind in LINE_KINDS or shape[0] == 1:
        shape = 1, shape[1]
        sides = 1, round(shape[1] * center_fraction)
    else:
        sides = tuple(plane_side(n, center_fraction) for n in shape)
    center = np.zeros(shape, bool)
    center[tuple(map(central, shape, sides))] = True
    return center


def plane_side(size: int, center_fraction: float) -> int:
    """Points along an axis of the center that masks over the plane sample."""
    return max(round(size * math.sqrt(center_fraction)), 1) if center_fraction > 0 else 0


def _check(kind: str, acceleration: float, center_fraction: float, center: np.ndarray,
           valid: np.ndarray) -> None:
    """Refuse an acceleration out of range, or one that leaves no room for the center."""
    if not 1 <= acceleration < math.inf:
        raise InputError(f"acceleration is {acceleration}, expected a finite number >= 1; "
                         "1 samples everything, 4 a quarter")
    if kind in WHOLE_KINDS and acceleration != round(acceleration):
        raise InputError(f"acceleration is {acceleration}, but {kind!r} takes every R-th line and "
                         "needs a whole number; round it, or use 'equispaced_fraction'")
    held, points = int((center & valid).sum()), int(valid.sum())
    if kind in WHOLE_KINDS:
        too_many = kind == "magic" and center_fraction >= 1 / acceleration
    else:
        too_many = held > points / acceleration
    if too_many and acceleration != 1:
        raise InputError(f"the center of a {kind!r} mask holds {held} of {points} points "
                         f"(center_fraction {center_fraction}), too many for acceleration "
                         f"{acceleration}; lower center_fraction or the acceleration")
