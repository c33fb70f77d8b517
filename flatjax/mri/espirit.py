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
from flatjax.mri.sampling import central

KERNEL = 6  # side of the patches
_POWER_STEPS = 40  # of the power iteration, which starts from the low-resolution coil images


class Sensitivities(NamedTuple):
    """Estimated maps and how far they explain the signal.

    Attributes:
        maps: `[..., coil, y, x]` complex64.
        eigenvalue: `[..., y, x]` float32, near 1 where there is signal that one set of maps
            explains, and below in the background.
    """

    maps: Array
    eigenvalue: Array


def espirit(kspace: ArrayLike, calibration: tuple[int, int], *, kernel: int = KERNEL,
            threshold: float = 0.02, crop: float = 0.8) -> Sensitivities:
    """Estimate coil maps from the calibration box.

    Patches of the calibration data, as matrix rows, span few directions. Projecting every patch
    of k-space on them is in image space one small Hermitian matrix per pixel, and the maps are
    its eigenvector of eigenvalue 1.

    The phase of the maps, which the eigenvectors leave open, is such that the low-resolution
    image that they give is real and positive: as in `sensitivities.from_calibration`, the
    object's smooth phase and the scanner's global one go into the maps. (Others make the first
    coil's map real.)

    Args:
        kspace: `[..., coil, ky, kx]` complex; only the calibration box is read.
        calibration: `(rows, columns)` of the fully sampled central box, see `calibration_size`;
            each from `kernel` up. Those of more than about 32 only cost time.
        kernel: side of the patches.
        threshold: singular values below this part of the largest are taken for noise.
        crop: maps are 0 where the eigenvalue is below; 0 leaves them everywhere.

    Returns:
        `Sensitivities`, with `sum_c |S_c|^2 == 1` wherever they are not 0.

    Raises:
        InputError: for sizes that do not fit, or a threshold or crop outside [0, 1).
    """
    kspace = jnp.asarray(kspace)
    if kspace.ndim < 3 or 0 in kspace.shape:
        raise InputError(f"k-space has shape {kspace.shape}, expected [..., coil, ky, kx] without "
                         "a zero")
    for name, value in (("threshold", threshold), ("crop", crop)):
        if not 0 <= value < 1:
            raise InputError(f"{name} is {value!r}, expected 0 <= {name} < 1")
    rows, columns = map(int, calibration)
    ky, kx = kspace.shape[-2:]
    if not (2 <= kernel <= min(rows, columns) and rows <= ky and columns <= kx):
        raise InputError(f"a calibration box of {rows} x {columns} in k-space of {ky} x {kx}, "
                         f"expected at least the kernel's {kernel} along both axes: take a mask "
                         "with a larger fully sampled center, a smaller kernel, or "
                         "low-resolution maps")
    box = kspace[..., central(ky, rows), central(kx, columns)]
    flat = box.reshape(-1, *box.shape[-3:]).astype(jnp.complex64)
    maps, eigenvalue = _espirit(flat, (ky, kx), kernel, threshold)
    maps = maps * (eigenvalue >= crop)[:, None]
    leading = kspace.shape[:-3]
    return Sensitivities(maps.reshape(*leading, *maps.shape[1:]),
                         eigenvalue.reshape(*leading, ky, kx))


@partial(jax.jit, static_argnums=(1, 2))
def _espirit(boxes: Array, shape: tuple[int, int], kernel: int,
             threshold: float) -> tuple[Array, Array]:
    """Maps `[batch, coil, *shape]` and eigenvalues `[batch, *shape]` of calibration boxes."""
    return jax.lax.map(lambda box: _one(box, shape, kernel, threshold), boxes)


def _one(box: Array, shape: tuple[int, int], kernel: int,
         threshold: float) -> tuple[Array, Array]:
    peak = jnp.max(jnp.abs(box))
    box = box / jnp.where(peak > 0, peak, 1)
    operator = _lag_sums(_signal_projection(box, kernel, threshold), kernel) / kernel**2
    lags = np.arange(1 - kernel, kernel)
    lag_rows, lag_columns = (_phases(lags, n, -1) for n in shape)
    rows, columns = map(_low_pass, shape, box.shape[-2:])
    low_rows = jnp.einsum("cqp,yq->ycp", box, rows)
    # from here on row by row: all pixels' matrices at once would be coil^2 images

    def row(phases: tuple[Array, Array]) -> tuple[Array, Array]:
        lag, low_row = phases
        matrices = jnp.einsum("abqp,q->abp", operator, lag) @ lag_columns.T
        image = low_row @ columns.T
        vector, eigenvalue = _power_iteration(matrices, image)
        combined = jnp.sum(jnp.conj(vector) * image, axis=0)
        return vector * _phasor(combined), eigenvalue

    maps, eigenvalue = jax.lax.map(row, (lag_rows, low_rows))
    return jnp.moveaxis(maps, 0, 1), eigenvalue


def _signal_projection(box: Array, kernel: int, threshold: float) -> Array:
    """Projection on the span of the box's patches, `[coil, k, k, coil, k, k]`.

    It maps a patch, as a column vector, to what of it is signal.
    """
    coils, height, width = box.shape
    patches = jnp.stack([box[:, i:height - kernel + 1 + i, j:width - kernel + 1 + j]
                         for i in range(kernel) for j in range(kernel)], axis=1)
    patches = patches.reshape(coils * kernel**2, -1)  # [entry of a patch, position of the patch]
    values, vectors = jnp.linalg.eigh(patches @ jnp.conj(patches.T))
    signal = values > threshold**2 * values[-1]
    projection = (vectors * signal) @ jnp.conj(vectors.T)
    return projection.reshape(coils, kernel, kernel, coils, kernel, kernel)


def _lag_sums(projection: Array, kernel: int) -> Array:
    """Sums over pairs of patch entries that lie equally far apart, `[coil, coil, lag, lag]`."""
    coils = projection.shape[0]
    i, j = np.arange(kernel)[:, None], np.arange(kernel)
    lag = (j - i + kernel - 1).ravel()
    pairs = projection.transpose(0, 3, 1, 4, 2, 5).reshape(coils, coils, kernel**2, kernel**2)
    size = 2 * kernel - 1
    sums = jnp.zeros((coils, coils, size, size), pairs.dtype)
    return sums.at[:, :, lag[:, None], lag].add(pairs)


def _power_iteration(matrices: Array, start: Array) -> tuple[Array, Array]:
    """The largest eigenvalue `[x]` of Hermitian `[coil, coil, x]`, its vector `[coil, x]`."""
    def normalize(vector: Array) -> tuple[Array, Array]:
        power = jnp.sum(jnp.real(vector) ** 2 + jnp.imag(vector) ** 2, axis=0)
        norm = jnp.sqrt(jnp.where(power > 0, power, 1))
        return vector / norm, jnp.where(power > 0, norm, 0)

    def step(_: int, state: tuple[Array, Array]) -> tuple[Array, Array]:
        return normalize(jnp.sum(matrices * state[0], axis=1))

    first, _ = normalize(start + 1e-3 * jnp.max(jnp.abs(start)))
    return jax.lax.fori_loop(0, _POWER_STEPS, step, (first, jnp.zeros(start.shape[1])))


def _phasor(z: Array) -> Array:
    zero = z == 0
    return jnp.where(zero, 1, z / jnp.where(zero, 1, jnp.abs(z)))


def _phases(frequencies: np.ndarray, size: int, sign: int) -> np.ndarray:
    """`exp(sign 2 pi i f r)` at the pixels of a centered axis, `[size, frequency]` complex64."""
    position = (np.arange(size) - size // 2) / size
    return np.exp(sign * 2j * np.pi * np.outer(position, frequencies)).astype(np.complex64)


def _low_pass(size: int, length: int) -> np.ndarray:
    """From the central samples of an axis, Hann-weighted, to its pixels, `[size, length]`."""
    frequency = np.arange(size)[central(size, length)] - size // 2
    hann = np.cos(np.pi * frequency / (length + 1)) ** 2
    return _phases(frequency, size, 1) * hann.astype(np.float32)
