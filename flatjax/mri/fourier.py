"""The centered, orthonormal two-dimensional Fourier transform."""

import jax.numpy as jnp
from jax import Array

_AXES = (-2, -1)


def fft2c(image: Array) -> Array:
    """Centered orthonormal DFT over the last two axes: image to k-space, same precision.

    The origin is index `n // 2` along each axis in both domains, for odd and even `n`, and
    `||fft2c(x)|| == ||x||`.
    """
    shifted = jnp.fft.ifftshift(image, axes=_AXES)
    return jnp.fft.fftshift(jnp.fft.fft2(shifted, axes=_AXES, norm="ortho"), axes=_AXES)


def ifft2c(kspace: Array) -> Array:
    """Inverse, and adjoint, of `fft2c`: k-space `[..., ky, kx]` to image `[..., y, x]`."""
    shifted = jnp.fft.ifftshift(kspace, axes=_AXES)
    return jnp.fft.fftshift(jnp.fft.ifft2(shifted, axes=_AXES, norm="ortho"), axes=_AXES)
