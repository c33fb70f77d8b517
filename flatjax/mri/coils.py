"""Coil sensitivities: from one image to many coils and back."""

import jax.numpy as jnp
from jax import Array

from flatjax.mri.fourier import fft2c, ifft2c


def expand(image: Array, maps: Array) -> Array:
    """E: image `[batch, y, x]` to multi-coil k-space `[batch, coil, ky, kx]`, `F(S x)`, complex64.

    S are the coil sensitivities, `maps` `[batch, coil, y, x]` complex64.
    """
    return fft2c(maps * image[..., None, :, :])


def reduce(kspace: Array, maps: Array) -> Array:
    """E^H, the adjoint of `expand`: k-space to image, `sum_c conj(S_c) F^-1 k_c`.

    It is also a left inverse wherever `sum_c |S_c|^2 == 1`.
    """
    return jnp.sum(jnp.conj(maps) * ifft2c(kspace), axis=-3)


def safe_abs(x: Array) -> Array:
    """|x| with gradient 0, not NaN, where x is 0: the background of every image."""
    zero = x == 0
    return jnp.where(zero, 0.0, jnp.abs(jnp.where(zero, 1.0, x)))


def rss(images: Array, axis: int = -3) -> Array:
    """Root sum of squares over the coil axis, with gradient 0 where every coil is 0; float32."""
    power = jnp.sum(jnp.real(images) ** 2 + jnp.imag(images) ** 2, axis=axis)
    zero = power == 0
    return jnp.where(zero, 0.0, jnp.sqrt(jnp.where(zero, 1.0, power)))
