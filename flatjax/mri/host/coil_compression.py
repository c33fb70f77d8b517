"""Linear maps between coils: compression to fewer virtual ones, prewhitening. Host side, numpy.

Buehrer et al., "Array compression for MRI with large coil arrays", MRM 57(6), 2007; Huang et al.,
MRI 26(1), 2008; Pruessmann et al., MRM 46(4), 2001, appendix B, for the noise.
"""

import operator

import numpy as np
from scipy.linalg import solve_triangular

from flatjax.errors import InputError


def compression_matrix(kspace: np.ndarray, virtual: int) -> np.ndarray:
    """The virtual coils that keep most of the signal: principal components over the samples.

    Args:
        kspace: `[..., coil, ky, kx]` complex; samples of 0 do not count, and the central
            part is enough. Leading axes, such as slices, share one matrix.
        virtual: how many, from 1 to the number of coils.

    Returns:
        `[virtual, coil]` complex64 with orthonormal rows, by falling energy, so that it keeps
        white noise white; see `apply_coils`.

    Raises:
        InputError: for another number of virtual coils, or an array of fewer than three axes.
    """
    samples = _samples(kspace)
    try:
        wanted = operator.index(virtual)
    except TypeError:
        wanted = 0
    if not 1 <= wanted <= len(samples):
        raise InputError(f"{virtual!r} virtual coils of {len(samples)} coils, expected a whole "
                         f"number from 1 to {len(samples)}")
    _, vectors = np.linalg.eigh(samples @ np.conj(samples.T))
    return np.conj(vectors[:, ::-1][:, :wanted].T).astype(np.complex64)


def noise_covariance(noise: np.ndarray) -> np.ndarray:
    """Covariance of the coils' noise.

    Args:
        noise: `[..., coil, ky, kx]` complex samples of noise alone, as of a scan without
            excitation: more of them than coils, and many more for a good estimate.

    Returns:
        `[coil, coil]` complex128, `E n n^H`, Hermitian.

    Raises:
        InputError: for an array of fewer than three axes, or no more samples than coils.
    """
    samples = _samples(noise)
    coils, count = samples.shape
    if count <= coils:
        raise InputError(f"{count} noise samples of {coils} coils, expected more samples than "
                         "coils: give a longer noise scan")
    return samples @ np.conj(samples.T) / count


def whitening_matrix(covariance: np.ndarray) -> np.ndarray:
    """The map that makes the coils' noise independent and of unit variance, by Cholesky.

    Args:
        covariance: `[coil, coil]` Hermitian and positive definite, of `noise_covariance`.

    Returns:
        `[coil, coil]` complex64, lower triangular; see `apply_coils`.

    Raises:
        InputError: for a matrix that is no such covariance.
    """
    covariance = np.asarray(covariance, np.complex128)
    square = covariance.ndim == 2 and covariance.shape[0] == covariance.shape[1]
    if not (square and np.allclose(covariance, np.conj(covariance.T), rtol=1e-5, atol=0)):
        raise InputError(f"a noise covariance of shape {covariance.shape}, expected a Hermitian "
                         "matrix [coil, coil]; make it with noise_covariance")
    try:
        root = np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError as error:
        raise InputError("the noise covariance is not positive definite: a coil without noise, or "
                         "a copy of others; leave that coil out") from error
    return solve_triangular(root, np.eye(len(root)), lower=True).astype(np.complex64)


def apply_coils(matrix: np.ndarray, kspace: np.ndarray) -> np.ndarray:
    """Combine coils linearly: `[new, coil]` and `[..., coil, ky, kx]` to `[..., new, ky, kx]`.

    Samples that are 0 in every coil stay 0, so masks keep their meaning; sensitivities transform
    alike. complex64.
    """
    kspace = np.asarray(kspace, np.complex64)
    flat = kspace.reshape(*kspace.shape[:-2], -1)
    return (matrix @ flat).reshape(*kspace.shape[:-3], len(matrix), *kspace.shape[-2:])


def _samples(kspace: np.ndarray) -> np.ndarray:
    """Coils by samples, `[coil, sample]` complex128."""
    kspace = np.asarray(kspace)
    if kspace.ndim < 3 or 0 in kspace.shape:
        raise InputError(f"k-space has shape {kspace.shape}, expected [..., coil, ky, kx] without "
                         "a zero")
    coils = kspace.shape[-3]
    return np.moveaxis(kspace, -3, 0).reshape(coils, -1).astype(np.complex128)
