"""Simulated acquisition of a slice: pure functions of a generator, which any thread may call."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import scipy.fft
from numpy.random import Generator

from flatjax.errors import check_at_least

_AXES = (-2, -1)


def host_fft2c(image: np.ndarray) -> np.ndarray:
    """Host twin of `mri.fft2c`: `[..., y, x]`, real or complex, to k-space complex64."""
    shifted = scipy.fft.ifftshift(np.asarray(image, np.complex64), axes=_AXES)
    return scipy.fft.fftshift(scipy.fft.fft2(shifted, axes=_AXES, norm="ortho"), axes=_AXES)


def host_ifft2c(kspace: np.ndarray) -> np.ndarray:
    """Inverse, and adjoint, of `host_fft2c`: k-space to image `[..., y, x]` complex64."""
    shifted = scipy.fft.ifftshift(np.asarray(kspace, np.complex64), axes=_AXES)
    return scipy.fft.fftshift(scipy.fft.ifft2(shifted, axes=_AXES, norm="ortho"), axes=_AXES)


def birdcage_maps(num_coils: int, shape: Sequence[int], *, radius: float = 1.5,
                  rotation: float = 0.0) -> np.ndarray:
    """Sensitivities of a birdcage: coils on a circle around the field of view.

    `[coil, y, x]` complex64 with `sum_c |S_c|^2 == 1` at every pixel. Each coil's magnitude falls
    with the distance to its element and its phase turns around it (the Biot-Savart field of a long
    wire). One coil is an ideal one: all ones. The radius of the circle is in units of half the
    field of view, the rotation of the whole array in radians.
    """
    check_at_least(1, num_coils=num_coils)
    if num_coils == 1:
        return np.ones((1, *shape), np.complex64)
    y = np.linspace(-1, 1, shape[0])[:, None]
    x = np.linspace(-1, 1, shape[1])
    angles = rotation + 2 * np.pi * np.arange(num_coils)[:, None, None] / num_coils
    dy = y - radius * np.sin(angles)
    dx = x - radius * np.cos(angles)
    # exp(i arctan2(dx, -dy)) / distance, without the transcendental functions
    maps = (-dy + 1j * dx) / (dy**2 + dx**2) * np.exp(-1j * angles)
    maps /= np.sqrt(np.sum(maps.real**2 + maps.imag**2, axis=0))
    return maps.astype(np.complex64)


def sparse_product(array: np.ndarray, index: np.ndarray, weights: np.ndarray,
                   axis: int) -> np.ndarray:
    """Replace an axis, a negative number, by weighted sums of a few of its entries.

    `index` and `weights` are `[m, taps]`, and the axis becomes m long. It uses no BLAS, whose
    threads contend with those that load data and whose sums differ between processors.
    """
    columns = weights.astype(array.dtype).reshape(*weights.shape, *(1,) * (-axis - 1))
    total = array.take(index[:, 0], axis) * columns[:, 0]
    for tap in range(1, index.shape[1]):
        total += array.take(index[:, tap], axis) * columns[:, tap]
    return total


@lru_cache(maxsize=64)
def _spline_taps(size: int, spacing: float) -> tuple[np.ndarray, np.ndarray]:
    """Cubic B-splines at every pixel, a knot each `spacing` pixels: index, weights `[size, 4]`."""
    at = np.arange(size) / spacing
    index = np.floor(at).astype(int)[:, None] + np.arange(4)
    u = np.abs(at[:, None] + 1 - index)
    weights = np.where(u < 1, 2 / 3 - u**2 + u**3 / 2, np.clip(2 - u, 0, None) ** 3 / 6)
    return index, weights


def smooth_field(rng: Generator, shape: Sequence[int], scale: float) -> np.ndarray:
    """A field `[y, x]` float32 of mean 0 and deviation 1, smooth over `scale` of a side."""
    spacing = max(1.0, scale * max(shape))
    rows, columns = (_spline_taps(n, spacing) for n in shape)
    knots = rng.standard_normal((rows[0].max() + 1, columns[0].max() + 1), dtype=np.float32)
    field = sparse_product(sparse_product(knots, *rows, -2), *columns, -1)
    field -= field.mean()
    return field / max(field.std(), 1e-6)


def image_phase(rng: Generator, shape: Sequence[int], amplitude: float = 0.5) -> np.ndarray:
    """Unit phasors `[y, x]` complex64 of a smooth random phase, `amplitude` rad in rms."""
    return np.exp(1j * amplitude * smooth_field(rng, shape, 0.4)).astype(np.complex64)


def spin_echo(tissues: np.ndarray, tr: float, te: float) -> np.ndarray:
    """Signal `PD (1 - exp(-TR / T1)) exp(-TE / T2)` of tissues `[3, tissue]`: T1, T2 in ms, PD."""
    t1, t2, density = tissues
    return density * (1 - np.exp(-tr / t1)) * np.exp(-te / t2)


def complex_noise(rng: Generator, shape: tuple[int, ...], sigma: float) -> np.ndarray:
    """Circular complex Gaussian noise with `E |n|^2 == sigma^2`, complex64."""
    parts = rng.standard_normal((2, *shape), dtype=np.float32)
    return (sigma * np.sqrt(0.5) * (parts[0] + 1j * parts[1])).astype(np.complex64)


def acquire(kspace: np.ndarray, mask: np.ndarray | float,
            noise: np.ndarray | float = 0.0) -> np.ndarray:
    """Measured k-space `M (k + n)`, `[coil, ky, kx]` complex64: zero where not sampled."""
    if np.any(noise):
        kspace = kspace + noise
    return np.asarray(mask * kspace, np.complex64)  # a further pass over a large slice is slow
