"""Coil sensitivities: from one image to many coils and back."""

import jax.numpy as jnp
from jax import Array

from flatjax.mri.fourier import fft2c, ifft2c


def expand(image: Array, maps: Array) -> Array:
    """E: image to multi-coil k-space, `F(S x)`.

    Args:
        image: `[batch, y, x]` complex64.
        maps: coil sensitivities `[batch, coil, y, x]` complex64.

    Returns:
        k-space `[batch, coil, ky, kx]` complex64.
    """
    return fft2c(maps * image[..., None, :, :])


def reduce(kspace: Array, maps: Array) -> Array:
    """E^H, the adjoint of `expand`: `sum_c conj(S_c) F^-1 k_c`.

    It is also a left inverse wherever `sum_c |S_c|^2 == 1`.

    Args:
        kspace: `[batch, coil, ky, kx]` complex64.
        maps: coil sensitivities `[batch, coil, y, x]` complex64.

    Returns:
        image `[batch, y, x]` complex64.
    """
    return jnp.sum(jnp.conj(maps) * ifft2c(kspace), axis=-3)


def safe_abs(x: Array) -> Array:
    """|x| with gradient 0, not NaN, where x is 0: the background of every image."""
    zero = x == 0
    return jnp.where(zero, 0.0, jnp.abs(jnp.where(zero, 1.0, x)))


def rss(images: Array, axis: int = -3) -> Array:
    """Root sum of squares over coils, with gradient 0 where every coil is 0.

    Args:
        images: coil images `[..., coil, y, x]` complex64.
        axis: the coil axis.

    Returns:
        magnitude `[..., y, x]` float32.
    """
    power = jnp.sum(jnp.real(images) ** 2 + jnp.imag(images) ** 2, axis=axis)
    zero = power == 0
    return jnp.where(zero, 0.0, jnp.sqrt(jnp.where(zero, 1.0, power)))
