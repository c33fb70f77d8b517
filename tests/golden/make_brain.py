"""Writes the scan of the notebooks, from the k-space it was taken from.

    python tests/golden/make_brain.py KSPACE.npy [examples/brain.npz]

KSPACE is one slice `[16, 128, 128]` complex64 of a head, see examples/LICENSE-brain.txt.
"""

import pathlib
import sys

import jax.numpy as jnp
import numpy as np

from flatjax import mri
from flatjax.mri.host.coil_compression import apply_coils, compression_matrix

FILE = pathlib.Path(__file__).parents[2] / "examples" / "brain.npz"


def main(source: str, destination: str | pathlib.Path) -> None:
    """Compress to eight coils, and round to an eighth of the noise, so that the file is small."""
    kspace = np.load(source).reshape(16, 128, 128)
    kspace = apply_coils(compression_matrix(kspace, 8), kspace)
    noise, = np.asarray(mri.noise_level(jnp.asarray(kspace[None]), jnp.ones((1, 1, 128, 128))))
    np.savez_compressed(destination, kspace=np.round(8 * kspace / noise).astype(np.complex64))


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2] if len(sys.argv) == 3 else FILE)
