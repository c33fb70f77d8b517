"""What the scanner does: the forward model A = M E and its adjoint."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from flatjax.mri.coils import expand, reduce, rss, safe_abs
from flatjax.mri.fourier import ifft2c


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
    """A^H A: image `[batch, y, x]` to `[batch, y, x]`, complex64.

    It equals `adjoint(forward(image))`, without the shifts of the centered transforms: `F^-1 M F`
    is a circular convolution, which commutes with a circular shift of the image.
    """
    mask = jnp.fft.ifftshift(mask, axes=(-2, -1))
    coils = jnp.fft.fft2(maps * image[..., None, :, :])
    return jnp.sum(jnp.conj(maps) * jnp.fft.ifft2(mask * coils), axis=-3)


def zero_filled(measurement: Measurement) -> Array:
    """The image of the measured samples alone, `A^H y`: `[batch, y, x]` complex64."""
    return adjoint(measurement.kspace, measurement.mask, measurement.maps)


COMBINES = ("sense", "rss")


def combine(kspace: Array, maps: Array, kind: str = "sense") -> Array:
    """Magnitude image of multi-coil k-space, in the manner of the reference it is scored against.

    Args:
        kspace: `[batch, coil, ky, kx]` complex64.
        maps: coil sensitivities `[batch, coil, y, x]` complex64.
        kind: "sense" for `|E^H k|`, "rss" for the root sum of squares over the coil images.

    Returns:
        `[batch, y, x]` float32. Its gradient is 0, not NaN, at pixels that are 0.
    """
    if kind == "sense":
        return safe_abs(reduce(kspace, maps))
    if kind == "rss":
        return rss(ifft2c(kspace))
    raise ValueError(f"combine is {kind!r}, expected one of {', '.join(COMBINES)}")


def intensity_scale(measurement: Measurement) -> Array:
    """Largest magnitude of the zero-filled image, `max |A^H y|`, or 1 for an empty slice.

    Dividing by it puts every slice on one scale, so that losses, sigma and the network see the
    same numbers from every scanner, and reconstruction commutes with scaling. It gets no gradient,
    so that maps that are learned cannot lower a loss by their scale.

    Returns:
        `[batch, 1, 1, 1]` float32, positive.
    """
    magnitude = jnp.abs(zero_filled(measurement))
    peak = jnp.max(magnitude, axis=(-2, -1))[:, None, None, None]
    return lax.stop_gradient(jnp.where(peak > 0, peak, 1.0))
