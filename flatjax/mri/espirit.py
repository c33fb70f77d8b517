"""ESPIRiT: coil sensitivities as eigenvectors, from the fully sampled center of k-space.

Uecker et al., "ESPIRiT - an eigenvalue approach to autocalibrating parallel MRI: where SENSE
meets GRAPPA", MRM 71(3), 2014. One set of maps.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from flatjax.errors import InputError
from flatjax.mri.forward import rss
from flatjax.mri.sampling import central

KERNEL = 6  # side of the patches
_POWER_STEPS = 40  # of the power iteration, which starts from the low-resolution coil images


class Sensitivities(NamedTuple):
    """Estimated maps, and how far one set of maps explains the signal: 1 for all of it."""

    maps: Array  # [..., coil, y, x] complex64
    eigenvalue: Array  # [..., y, x] float32, near 1 where there is signal


def espirit(kspace: ArrayLike, calibration: tuple[int, int], *, kernel: int = KERNEL,
            threshold: float = 0.02, crop: float = 0.8) -> Sensitivities:
    """Estimate coil maps from the calibration box.

    Patches of the calibration data, as matrix rows, span few directions. Projecting every patch
    of k-space on them is in image space one small Hermitian matrix per pixel, and the maps are
    its eigenvector of eigenvalue 1. The phase that this leaves open is such that the low-resolution
    image that the maps give is real and positive: the object's smooth phase and the scanner's
    global one go into the maps. (Others make the first coil's map real.)

    Args:
        kspace: `[..., coil, ky, kx]` complex; only the calibration box is read.
        calibration: `(rows, columns)` of the fully sampled central box, see `calibration_size`.
            More than about 32 only cost time. InputError for less than the kernel.
        kernel: side of the patches.
        threshold: singular values below this part of the largest are taken for noise.
        crop: maps are 0 where the eigenvalue is below, and `sum_c |S_c|^2 == 1` elsewhere.
    """
    kspace = jnp.asarray(kspace)
    rows, columns = map(int, calibration)
    *leading, _, ky, kx = kspace.shape
    if not (2 <= kernel <= min(rows, columns) and rows <= ky and columns <= kx):
        raise InputError(f"a calibration box of {rows} x {columns} in k-space of {ky} x {kx}, "
                         f"expected at least the kernel's {kernel} along both axes: take a mask "
                         "with a larger fully sampled center, or low-resolution maps")
    box = kspace[..., central(ky, rows), central(kx, columns)]
    flat = box.reshape(-1, *box.shape[-3:]).astype(jnp.complex64)
    maps, eigenvalue = _espirit(flat, (ky, kx), kernel, threshold)
    maps = maps * (eigenvalue >= crop)[:, None]
    return Sensitivities(maps.reshape(*leading, *maps.shape[1:]),
                         eigenvalue.reshape(*leading, ky, kx))


@partial(jax.jit, static_argnums=(1, 2))
def _espirit(boxes: Array, shape: tuple[int, int], kernel: int,
             threshold: float) -> tuple[Array, Array]:
    """Maps `[batch, coil, *shape]` and eigenvalues `[batch, *shape]` of calibration boxes."""
    lags = np.arange(1 - kernel, kernel)
    lag_rows, lag_columns = (_phases(lags, n, -1) for n in shape)
    rows, columns = map(_low_pass, shape, boxes.shape[-2:])

    def one(box: Array) -> tuple[Array, Array]:
        peak = jnp.max(jnp.abs(box))
        box = box / jnp.where(peak > 0, peak, 1)
        operator = _lag_sums(_signal_projection(box, kernel, threshold)) / kernel**2

        def row(phases: tuple[Array, Array]) -> tuple[Array, Array]:
            lag, low_row = phases
            matrices = jnp.einsum("abqp,q->abp", operator, lag) @ lag_columns.T
            image = low_row @ columns.T
            vector, eigenvalue = _power_iteration(matrices, image)
            combined = jnp.sum(jnp.conj(vector) * image, axis=0)
            zero = combined == 0
            phasor = jnp.where(zero, 1, combined / jnp.where(zero, 1, jnp.abs(combined)))
            return vector * phasor, eigenvalue

        # row by row: all pixels' matrices at once would be coil^2 images
        low_rows = jnp.einsum("cqp,yq->ycp", box, rows)
        maps, eigenvalue = jax.lax.map(row, (lag_rows, low_rows))
        return jnp.moveaxis(maps, 0, 1), eigenvalue

    return jax.lax.map(one, boxes)


def _signal_projection(box: Array, kernel: int, threshold: float) -> Array:
    """What maps a patch to its part in the span of the box's, `[coil, k, k, coil, k, k]`."""
    coils, height, width = box.shape
    patches = jnp.stack([box[:, i:height - kernel + 1 + i, j:width - kernel + 1 + j]
                         for i in range(kernel) for j in range(kernel)], axis=1)
    patches = patches.reshape(coils * kernel**2, -1)  # [entry of a patch, position of the patch]
    values, vectors = jnp.linalg.eigh(patches @ jnp.conj(patches.T))
    signal = values > threshold**2 * values[-1]
    projection = (vectors * signal) @ jnp.conj(vectors.T)
    return projection.reshape(coils, kernel, kernel, coils, kernel, kernel)


def _lag_sums(projection: Array) -> Array:
    """Sums over pairs of patch entries that lie equally far apart, `[coil, coil, lag, lag]`."""
    coils, kernel = projection.shape[:2]
    i, j = np.arange(kernel)[:, None], np.arange(kernel)
    lag = (j - i + kernel - 1).ravel()
    pairs = projection.transpose(0, 3, 1, 4, 2, 5).reshape(coils, coils, kernel**2, kernel**2)
    sums = jnp.zeros((coils, coils, 2 * kernel - 1, 2 * kernel - 1), pairs.dtype)
    return sums.at[:, :, lag[:, None], lag].add(pairs)


def _power_iteration(matrices: Array, start: Array) -> tuple[Array, Array]:
    """The eigenvector `[coil, x]` of Hermitian `[coil, coil, x]` of the largest value, `[x]`."""
    def normalize(vector: Array) -> tuple[Array, Array]:
        norm = rss(vector, axis=0)
        return vector / jnp.where(norm > 0, norm, 1), norm

    def step(_: int, state: tuple[Array, Array]) -> tuple[Array, Array]:
        return normalize(jnp.sum(matrices * state[0], axis=1))

    first = normalize(start + 1e-3 * jnp.max(jnp.abs(start)))
    return jax.lax.fori_loop(0, _POWER_STEPS, step, first)


def _phases(frequencies: np.ndarray, size: int, sign: int) -> np.ndarray:
    """`exp(sign 2 pi i f r)` at the pixels of a centered axis, `[size, frequency]` complex64."""
    position = (np.arange(size) - size // 2) / size
    return np.exp(sign * 2j * np.pi * np.outer(position, frequencies)).astype(np.complex64)


def _low_pass(size: int, length: int) -> np.ndarray:
    """From the central samples of an axis, Hann-weighted, to its pixels, `[size, length]`."""
    frequency = np.arange(size)[central(size, length)] - size // 2
    hann = np.cos(np.pi * frequency / (length + 1)) ** 2
    return _phases(frequency, size, 1) * hann.astype(np.float32)
