"""Orthonormal wavelet transform of images, by Daubechies' filter with four vanishing moments.

With the filter of eight taps ("db4") and the pyramid of Mallat, wrapped around at the borders
("periodization"), the inverse is the adjoint, and the sum of the coefficients' magnitudes has an
exact proximal operator. Images whose sides `2^levels` does not divide are padded with zeros.

Daubechies, "Ten Lectures on Wavelets", 1992, table 6.1; Mallat, IEEE TPAMI 11(7), 1989.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from flatjax.errors import InputError

_FILTER = np.array([  # low-pass, of sum sqrt(2) and norm 1
    0.23037781330885523, 0.7148465705525415, 0.6308807679295904, -0.02798376941698385,
    -0.18703481171888114, 0.030841381835986965, 0.032883011666982945, -0.010597401784997278])


@lru_cache(maxsize=64)
def _level(size: int) -> np.ndarray:
    """One level along one axis, `[size, size]` float64 orthonormal: averages, then details."""
    half, taps = size // 2, np.arange(len(_FILTER))
    filters = np.stack([_FILTER, _FILTER[::-1] * (-1.0) ** taps])
    row = np.arange(half)[:, None]
    places: Any = slice(None), row, (2 * row + taps + 1 - len(_FILTER) // 2) % size
    rows = np.zeros((2, half, size))
    np.add.at(rows, places, filters[:, None])  # a filter longer than the axis meets itself
    return rows.reshape(size, size)


def padded_shape(shape: Sequence[int], levels: int) -> tuple[int, int]:
    """The next larger shape whose sides `2^levels` divides; InputError for too many levels."""
    most = min(shape).bit_length() - 1
    if levels > most:
        raise InputError(f"levels is {levels}, expected at most {most} for images of "
                         f"{shape[0]} x {shape[1]}")
    height, width = (-(-n // 2**levels) * 2**levels for n in shape)
    return height, width


def forward(image: Array, levels: int) -> Array:
    """Coefficients `[..., *padded_shape]` of an image `[..., y, x]`, real or complex.

    The coarsest averages are in the first corner, around them the details of each level.
    """
    shape = padded_shape(image.shape[-2:], levels)
    margins = [(0, to - n) for n, to in zip(image.shape[-2:], shape, strict=True)]
    coefficients = jnp.pad(image, [(0, 0)] * (image.ndim - 2) + margins)
    for level in range(levels):
        coefficients = _on_corner(coefficients, level, inverse=False)
    return coefficients


def inverse(coefficients: Array, shape: Sequence[int], levels: int) -> Array:
    """The image `[..., *shape]` of coefficients from `forward`: its adjoint and left inverse."""
    for level in reversed(range(levels)):
        coefficients = _on_corner(coefficients, level, inverse=True)
    return coefficients[..., :shape[0], :shape[1]]


def _on_corner(coefficients: Array, level: int, *, inverse: bool) -> Array:
    height, width = (n >> level for n in coefficients.shape[-2:])
    rows, columns = (jnp.asarray(_level(n).T if inverse else _level(n), jnp.float32)
                     for n in (height, width))
    corner = jnp.einsum("ij,...jk,lk->...il", rows, coefficients[..., :height, :width], columns,
                        precision=lax.Precision.HIGHEST)
    return coefficients.at[..., :height, :width].set(corner)
