"""Linear combinations of coils: compression to fewer virtual ones, prewhitening. Host side, numpy.

Buehrer et al., "Array compression for MRI with large coil arrays", MRM 57(6), 2007; Huang et al.,
MRI 26(1), 2008; Pruessmann et al., MRM 46(4), 2001, appendix B, for the noise.
"""

import numpy as np
from scipy.linalg import solve_triangular


def compression_matrix(kspace: np.ndarray, virtual: int) -> np.ndarray:
    """The virtual coils that keep most of the signal: principal components over the samples.

    Of k-space `[..., coil, ky, kx]` samples of 0 do not count, and the central part is enough.
    It is `[virtual, coil]` complex64 with orthonormal rows, by falling energy.
    """
    coils = kspace.shape[-3]
    samples = np.moveaxis(kspace, -3, 0).reshape(coils, -1).astype(np.complex128)
    _, vectors = np.linalg.eigh(samples @ np.conj(samples.T))
    return np.conj(vectors[:, ::-1][:, :virtual].T).astype(np.complex64)


def noise_covariance(noise: np.ndarray) -> np.ndarray | None:
    """`E n n^H` `[coil, coil]` complex128 of a noise scan, `[coil, sample]` complex.

    None if it does not tell: of fewer than ten samples per coil, or of coils without noise of
    their own.
    """
    coils, count = noise.shape
    noise = noise.astype(np.complex128)
    covariance = noise @ np.conj(noise.T) / max(count, 1)
    size = np.linalg.norm(noise, axis=1) / max(count, 1) ** 0.5
    if count < 10 * coils or not size.all():
        return None
    least = np.linalg.eigvalsh(covariance / np.outer(size, size))[0]
    return covariance if least > 1e-6 else None


def whitening(covariance: np.ndarray) -> tuple[np.ndarray, float]:
    """`(matrix, level)`: what makes the noise of coils independent, and the level of each then.

    The matrix `[coil, coil]` complex64 is for `apply_coils`, of k-space and of coil maps. The level
    is the root of the coils' mean variance, so that k-space keeps its unit.
    """
    level = float(np.sqrt(np.trace(covariance).real / len(covariance)))
    root = np.linalg.cholesky(covariance / level**2)
    return solve_triangular(root, np.eye(len(root)), lower=True).astype(np.complex64), level


def apply_coils(matrix: np.ndarray, kspace: np.ndarray) -> np.ndarray:
    """Combine coils linearly: `[new, coil]` and `[..., coil, ky, kx]` to `[..., new, ky, kx]`.

    Samples that are 0 in every coil stay 0, so masks keep their meaning. complex64.
    """
    kspace = np.asarray(kspace, np.complex64)
    flat = kspace.reshape(*kspace.shape[:-2], -1)
    return (matrix @ flat).reshape(*kspace.shape[:-3], len(matrix), *kspace.shape[-2:])
