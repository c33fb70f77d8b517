"""Compression of many coils to fewer virtual ones. Host side, numpy.

Buehrer et al., "Array compression for MRI with large coil arrays", MRM 57(6), 2007; Huang et al.,
MRI 26(1), 2008.
"""

import numpy as np


def compression_matrix(kspace: np.ndarray, virtual: int) -> np.ndarray:
    """The virtual coils that keep most of the signal: principal components over the samples.

    Of k-space `[..., coil, ky, kx]` samples of 0 do not count, and the central part is enough.
    It is `[virtual, coil]` complex64 with orthonormal rows, by falling energy.
    """
    coils = kspace.shape[-3]
    samples = np.moveaxis(kspace, -3, 0).reshape(coils, -1).astype(np.complex128)
    _, vectors = np.linalg.eigh(samples @ np.conj(samples.T))
    return np.conj(vectors[:, ::-1][:, :virtual].T).astype(np.complex64)


def apply_coils(matrix: np.ndarray, kspace: np.ndarray) -> np.ndarray:
    """Combine coils linearly: `[new, coil]` and `[..., coil, ky, kx]` to `[..., new, ky, kx]`.

    Samples that are 0 in every coil stay 0, so masks keep their meaning. complex64.
    """
    kspace = np.asarray(kspace, np.complex64)
    flat = kspace.reshape(*kspace.shape[:-2], -1)
    return (matrix @ flat).reshape(*kspace.shape[:-3], len(matrix), *kspace.shape[-2:])
