"""Where samples of k-space lie: central box, calibration region, acquired columns, acceleration."""

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from jax.typing import ArrayLike

from flatjax.errors import InputError
from flatjax.mri.crop import AnyArray


def central(size: int, length: Any) -> slice:
    """The `length` central indices of an axis of k-space, as `center_mask` places them.

    For an array of lengths the ends of the slice are arrays.
    """
    start = (size - length + 1) // 2
    return slice(start, start + length)


def calibration_size(mask: AnyArray) -> tuple[AnyArray, AnyArray]:
    """The largest fully sampled box around the zero frequency, by its number of points.

    Args:
        mask: `[..., ky or 1, kx]` numpy or JAX array, non-zero where sampled.

    Returns:
        `(rows, columns)`, int arrays `[...]`: the box is `central` along both axes. Of masks of
        lines the one row stands for all. Both are 0 where the zero frequency was not sampled.
    """
    ky, kx = mask.shape[-2:]
    # indices in the order in which a growing central box reaches them
    rows, columns = (np.argsort([min(length for length in range(1, n + 1)
                                     if i in range(n)[central(n, length)]) for i in range(n)])
                     for n in (ky, kx))
    grown: Any = (mask != 0)[..., rows, :][..., columns].astype(np.int32)
    full = grown.cumprod(-2).cumprod(-1)
    points = full * np.arange(1, ky + 1)[:, None] * np.arange(1, kx + 1)
    best = points.reshape(*mask.shape[:-2], -1).argmax(-1)
    sampled = full[..., 0, 0]
    return (best // kx + 1) * sampled, (best % kx + 1) * sampled


def calibration_mask(mask: AnyArray) -> AnyArray:
    """The box of `calibration_size` as a mask, shaped like `mask`, bool; it runs under `jax.jit`.

    Args:
        mask: `[..., ky or 1, kx]` numpy or JAX array, non-zero where sampled.
    """
    inside = []
    for n, length in zip(mask.shape[-2:], calibration_size(mask), strict=True):
        box = central(n, length[..., None])
        inside.append((np.arange(n) >= box.start) & (np.arange(n) < box.stop))
    rows, columns = inside
    return rows[..., :, None] & columns[..., None, :]


def achieved_acceleration(mask: ArrayLike, valid: ArrayLike | None = None) -> float:
    """Total points per sampled point, a float; infinite for a mask that samples nothing.

    Args:
        mask: any shape, non-zero where sampled.
        valid: non-zero where a point could have been sampled, for example
            `valid_columns(kx, padding)`; it broadcasts against the mask. None means everywhere.

    Raises:
        InputError: valid does not broadcast to the mask's shape, or leaves no point.
    """
    sampled = np.asarray(mask) != 0
    possible = np.asarray(True if valid is None else np.asarray(valid) != 0)
    try:
        counted = np.broadcast_to(possible, sampled.shape)
    except ValueError:
        raise InputError(
            f"valid has shape {possible.shape}, expected one that broadcasts to the mask's "
            f"{sampled.shape}; pass valid_columns(kx, padding)"
        ) from None
    total, hits = int(counted.sum()), int((sampled & counted).sum())
    if total == 0:
        raise InputError(
            f"no point of the mask of shape {sampled.shape} is valid, expected at least one; "
            "check the padding"
        )
    return total / hits if hits else math.inf


def valid_columns(width: int, padding: tuple[int, int] | None = None) -> np.ndarray:
    """The columns that were acquired, `[width]` bool: left <= i < right for padding (left, right).

    Raises InputError unless 0 <= left < right <= width.
    """
    if padding is None:
        return np.ones(width, bool)
    try:
        left, right = (operator.index(edge) for edge in padding)
    except (TypeError, ValueError):
        left, right = 0, 0
    if not 0 <= left < right <= width:
        raise InputError(
            f"padding is {padding!r}, expected two ints (left, right) with 0 <= left < right <= "
            f"{width}; columns from left up to, not including, right are acquired"
        )
    columns = np.arange(width)
    return (left <= columns) & (columns < right)


def distance_from_center(shape: Sequence[int]) -> np.ndarray:
    """Distance from the zero frequency, `[ky, kx]` float64; 1 is an edge, sqrt(2) a corner."""
    ky, kx = ((np.arange(n) - n // 2) / (n / 2) for n in shape)
    return np.hypot(ky[:, None], kx[None, :])
