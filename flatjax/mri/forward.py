"""What the scanner does: the forward model A = M E, its adjoint, and the noise of a measurement."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from flatjax.errors import check_choice
from flatjax.mri.coils import expand, reduce, rss, safe_abs
from flatjax.mri.fourier import ifft2c
from flatjax.mri.sampling import distance_from_center

_OUTERMOST = 0.05  # of the measured samples: where the object's signal is weakest
_MEDIAN = float(np.sqrt(np.log(2)))  # of |n| for circular complex noise with E |n|^2 = 1


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


COMBINES = ("sense", "rss")


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
