"""3-D Cartesian k-space as 2-D slices: the inverse Fourier transform along the readout.

The readout is always fully sampled, so that every point along it is a 2-D problem of its own, in
both phase encodings.
"""

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import groupby

import numpy as np
import scipy.fft

from flatjax.data.io.kspace.base import Reader, Shape, as_slices
from flatjax.errors import InputError
from flatjax.mri.sampling import has_gaps

_MOST = 2**30  # bytes of slices in memory at once; the file is read once for each so many


def along_readout(shape: Shape, read: Reader, frames: int = 1,
                  kept: int | None = None) -> tuple[Shape, Reader]:
    """Shape and reader `[frame * y, coil, kz, kx]` of 3-D k-space `[frame * kz, coil, ky, kx]`.

    ky is the readout, of whose pixels the central `kept` become slices, by default all. The
    transform is centered and orthonormal, which keeps the noise of a sample. Slices raise
    InputError if the readout is not fully sampled, but for its ends.
    """
    count, coils, ky, kx = shape
    kept = kept or ky
    out = as_slices("the 3-D scan", (frames * kept, coils, count // frames, kx))
    return out, partial(_slices, out, read, ky, kept)


def _slices(shape: Shape, read: Reader, ky: int, kept: int,
            indices: Iterable[int]) -> Iterator[np.ndarray]:
    _, coils, kz, kx = shape
    size = max(1, _MOST // (8 * coils * kz * kx))
    for frame, group in groupby(indices, lambda index: index // kept):
        every = np.array([(ky - kept) // 2 + index % kept for index in group])
        for wanted in np.array_split(every, range(size, len(every), size)):
            block = np.empty((len(wanted), coils, kz, kx), np.complex64)
            sampled = np.empty((kz, ky, kx), bool)
            for z, plane in enumerate(read(range(frame * kz, (frame + 1) * kz))):
                sampled[z] = plane.any(axis=0)
                line = scipy.fft.ifft(scipy.fft.ifftshift(plane, axes=1), axis=1, norm="ortho")
                block[:, :, z] = scipy.fft.fftshift(line, axes=1)[:, wanted].swapaxes(0, 1)
            rows, lines = np.asarray(sampled.any(axis=(0, 2))), sampled.any(axis=1)
            if has_gaps(rows) or sampled.sum() < 0.9 * rows.sum() * lines.sum():
                raise InputError(
                    f"the readout, ky of {ky}, is not fully sampled, expected so of a 3-D scan, "
                    "whose slices are made along it; name the axis that is with --axes")
            yield from block
