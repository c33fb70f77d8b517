"""What the scanner does: the forward model A = M E = M F S, its adjoint, and a measurement's noise.

F is the centered, orthonormal Fourier transform and S are the coil sensitivities.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from flatjax.errors import check_choice
from flatjax.mri.sampling import distance_from_center

_AXES = (-2, -1)
_OUTERMOST = 0.05  # of the measured samples: where the object's signal is weakest
_MEDIAN = float(np.sqrt(np.log(2)))  # of |n| for circular complex noise with E |n|^2 = 1
COMBINES = ("sense", "rss")


class Measurement(NamedTuple):
    """One batch of undersampled slices.

    Attributes:
        kspace: measured k-space `[batch, coil, ky, kx]` complex64, zero where not sampled; a
            single-coil scan has `coil == 1`. Any unit: methods normalize for themselves.
        mask: sampling mask `[batch, 1, ky or 1, kx]` float32, 1 where sampled.
        maps: coil sensitivities `[batch, coil, y, x]` complex64 with `sum_c |S_c|^2 == 1` inside
            the object; ones for a single coil.
        noise: standard deviation of the complex noise of a sample, `E |n|^2 = noise^2`, in the
            unit of `kspace`, `[batch]` float32; None where it is not known.
    """

    kspace: Array
    mask: Array
    maps: Array
    noise: Array | None = None


class Batch(NamedTuple):
    """Training data: what was measured and what should come out.

    Attributes:
        measurement: undersampled k-space with its mask and maps.
        kspace: fully sampled, noise-free k-space `[batch, coil, ky, kx]` complex64.
        target: magnitude image `[batch, h, w]` float32; `h, w` at most `y, x`, centered.
    """

    measurement: Measurement
    kspace: Array
    target: Array


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


def forward(image: Array, mask: Array, maps: Array) -> Array:
    """A: image `[batch, y, x]` to measured k-space `[batch, coil, ky, kx]`, complex64."""
    return mask * expand(image, maps)


def adjoint(kspace: Array, mask: Array, maps: Array) -> Array:
    """A^H: k-space `[batch, coil, ky, kx]` to the zero-filled image `[batch, y, x]`, complex64."""
    return reduce(mask * kspace, maps)


def normal(image: Array, mask: Array, maps: Array) -> Array:
    """A^H A: image `[batch, y, x]` to image, complex64.

    Without the shifts of the centered transforms: `F^-1 M F` is a circular convolution, which
    commutes with a circular shift of the image.
    """
    mask = jnp.fft.ifftshift(mask, axes=(-2, -1))
    coils = jnp.fft.fft2(maps * image[..., None, :, :])
    return jnp.sum(jnp.conj(maps) * jnp.fft.ifft2(mask * coils), axis=-3)


def zero_filled(measurement: Measurement) -> Array:
    """The image of the measured samples alone, `A^H y`: `[batch, y, x]` complex64."""
    return adjoint(measurement.kspace, measurement.mask, measurement.maps)


def safe_abs(x: Array) -> Array:
    """`|x|` with gradient 0, not NaN, where x is 0: the background of every image."""
    zero = x == 0
    return jnp.where(zero, 0.0, jnp.abs(jnp.where(zero, 1.0, x)))


def rss(images: Array, axis: int = -3) -> Array:
    """Root sum of squares over the coil axis, with gradient 0 where every coil is 0; float32."""
    power = jnp.sum(jnp.real(images) ** 2 + jnp.imag(images) ** 2, axis=axis)
    zero = power == 0
    return jnp.where(zero, 0.0, jnp.sqrt(jnp.where(zero, 1.0, power)))


def combine(kspace: Array, maps: Array, kind: str = "sense") -> Array:
    """Magnitude image `[batch, y, x]` float32 of k-space `[batch, coil, ky, kx]` complex64.

    It is made as the reference that it is scored against: "sense" for `|E^H k|`, "rss" for the
    root sum of squares over the coil images. Its gradient is 0, not NaN, at pixels that are 0.
    """
    check_choice("combine", kind, COMBINES)
    return safe_abs(reduce(kspace, maps)) if kind == "sense" else rss(ifft2c(kspace))


def intensity_scale(measurement: Measurement) -> Array:
    """Largest magnitude of the zero-filled image, `max |A^H y|`, or 1 for an empty slice.

    Dividing by it puts every slice on one scale, whatever the scanner's unit. It gets no gradient,
    so that maps that are learned cannot lower a loss by their scale. `[batch, 1, 1, 1]` float32.
    """
    magnitude = jnp.abs(zero_filled(measurement))
    peak = jnp.max(magnitude, axis=(-2, -1))[:, None, None, None]
    return lax.stop_gradient(jnp.where(peak > 0, peak, 1.0))


def global_phase(measurement: Measurement) -> Array:
    """Phasor of the zero-filled image `x` as a whole, that of `sum x |x|`, or 1 for an empty slice.

    Without gradient, `[batch, 1, 1]` complex64.
    """
    image = zero_filled(measurement)
    mean = jnp.mean(image * jnp.abs(image), axis=(-2, -1), keepdims=True)
    size = jnp.abs(mean)
    return lax.stop_gradient(jnp.where(size > 0, mean / jnp.where(size > 0, size, 1), 1))


def noise_level(kspace: Array, mask: Array) -> Array:
    """Standard deviation of the noise, from the median of the outermost measured samples.

    `[batch]` float32, as in `Measurement`; 0 where it is empty. It is too large where the object
    reaches the edge of k-space, and too small where the scanner filtered or padded k-space there.
    """
    distance = distance_from_center(kspace.shape[-2:]).astype(np.float32)
    distance = jnp.where(mask > 0, distance, jnp.nan)
    edge = jnp.nanquantile(distance, 1 - _OUTERMOST, axis=(-3, -2, -1), keepdims=True)
    present = jnp.any(kspace != 0, axis=(-2, -1), keepdims=True)
    far = jnp.where((distance >= edge) & present, jnp.abs(kspace), jnp.nan)
    return jnp.nan_to_num(jnp.nanmedian(far, axis=(-3, -2, -1))) / _MEDIAN
