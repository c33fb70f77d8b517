"""Where samples of k-space lie: center, calibration region, acquired columns, acceleration."""

import math
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from jax import Array
from jax.typing import ArrayLike

LARGEST_BOX = 32  # samples along a side that maps are made of, at most: more cost time alone
AnyArray = TypeVar("AnyArray", Array, np.ndarray)


def central(size: int, length: int) -> slice:
    """The `length` central indices of an axis of k-space."""
    start = (size - length + 1) // 2
    return slice(start, start + length)


def center_crop(image: AnyArray, shape: Sequence[int]) -> AnyArray:
    """The central `shape` `(h, w)` of the last two axes; ValueError if the image is smaller."""
    height, width = image.shape[-2:]
    if shape[0] > height or shape[1] > width:
        raise ValueError(f"cannot crop {height} x {width} to {shape[0]} x {shape[1]}: "
                         "expected a shape no larger than the image")
    top, left = (height - shape[0]) // 2, (width - shape[1]) // 2
    return image[..., top:top + shape[0], left:left + shape[1]]


def _outward(size: int) -> np.ndarray:
    """The indices of an axis in the order in which a growing central box reaches them."""
    return np.argsort(np.abs(np.arange(size) - (size - 0.5) / 2))


def calibration_size(mask: AnyArray) -> tuple[AnyArray, AnyArray]:
    """The largest fully sampled box around the zero frequency, by its number of points.

    Of a mask `[..., ky or 1, kx]`, numpy or JAX, non-zero where sampled: `(rows, columns)`, int
    arrays `[...]`. The box is `central` along both axes; of masks of lines the one row stands for
    all. Both are 0 where the zero frequency was not sampled.
    """
    ky, kx = mask.shape[-2:]
    grown: Any = (mask != 0)[..., _outward(ky), :][..., _outward(kx)].astype(np.int32)
    full = grown.cumprod(-2).cumprod(-1)
    points = full * np.arange(1, ky + 1)[:, None] * np.arange(1, kx + 1)
    best = points.reshape(*mask.shape[:-2], -1).argmax(-1)
    sampled = full[..., 0, 0]
    return (best // kx + 1) * sampled, (best % kx + 1) * sampled


def calibration_mask(mask: AnyArray, largest: int = 2**31 - 1) -> AnyArray:
    """The box of `calibration_size` as a mask, shaped like `mask`, bool; it may be jitted.

    With `largest`, no more than so many central rows and columns of it.
    """
    sides: Any = zip(mask.shape[-2:], calibration_size(mask), strict=True)
    rows, columns = (np.argsort(_outward(n)) < length.clip(max=largest)[..., None]
                     for n, length in sides)
    return rows[..., :, None] & columns[..., None, :]


def achieved_acceleration(mask: ArrayLike) -> float:
    """Points of a mask of any shape per sampled point; infinite if it samples nothing."""
    sampled = np.count_nonzero(mask)
    return np.size(mask) / sampled if sampled else math.inf


def pattern(mask: np.ndarray) -> str:
    """How masks `[..., ky, kx]` sample: lines as "columns" or "rows", "points", or "full".

    "full" is a box without gaps, as zero padding and partial Fourier leave it.
    """
    points = np.asarray(mask.reshape(-1, *mask.shape[-2:]).any(axis=0))
    rows, columns = (np.asarray(points.any(axis=axis)) for axis in (1, 0))
    if (has_gaps(rows) and has_gaps(columns)) or (points != rows[:, None] & columns).any():
        return "points"
    return "rows" if has_gaps(rows) else "columns" if has_gaps(columns) else "full"


def has_gaps(lines: np.ndarray) -> bool:
    """Whether lines, bool of an axis, are not all side by side."""
    return bool((np.diff(lines.nonzero()[0]) > 1).any())


def valid_columns(width: int, padding: tuple[int, int] | None = None) -> np.ndarray:
    """The columns left <= i < right of a padding (left, right), or all, `[width]` bool."""
    left, right = padding or (0, width)
    columns = np.arange(width)
    return (left <= columns) & (columns < right)


def distance_from_center(shape: Sequence[int]) -> np.ndarray:
    """Distance from the zero frequency, `[ky, kx]` float64; 1 is an edge, sqrt(2) a corner."""
    ky, kx = ((np.arange(n) - n // 2) / (n / 2) for n in shape)
    return np.hypot(ky[:, None], kx[None, :])
