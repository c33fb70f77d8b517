"""k-space in BART's `.cfl` and `.hdr` (mrirecon.github.io/bart): complex64, first axis fastest.

Of BART's sixteen dimensions those of a Cartesian 2-D scan may be longer than 1: READ (0) and PHS1
(1), COIL (3) and SLICE (13). k-space is centered as BART's own `fft -u` has it, which is as
`mri.fft2c` has it.
"""

import math
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from flatjax.data.io.checks import check_file, finite, reading
from flatjax.data.io.kspace.base import Reader, Shape, as_slices
from flatjax.errors import InputError

_READ, _PHS1, _COIL, _SLICE = 0, 1, 3, 13
_LONGEST_HEADER = 2**16  # bytes


def open_cfl(file: Path) -> tuple[Shape, Reader]:
    """k-space or coil maps, as of `bart ecalib -m1`, of a `.cfl` or its `.hdr`."""
    data, header = file.with_suffix(".cfl"), file.with_suffix(".hdr")
    with reading(header), header.open(errors="replace") as stream:
        _, _, text = stream.read(_LONGEST_HEADER).partition("# Dimensions\n")
        dims = [int(word) for word in text.splitlines()[0].split()]
        dims += [1] * (_SLICE + 1 - len(dims))
        longer = [f"{axis} of {n}" for axis, n in enumerate(dims)
                  if n != 1 and axis not in (_READ, _PHS1, _COIL, _SLICE)]
        if longer:
            raise InputError(f"has dimension {', '.join(longer)}, expected more than 1 only of "
                             "READ (0), PHS1 (1), COIL (3) and SLICE (13); extract one with 'bart "
                             "slice', or for a 3-D scan transform its readout with 'bart fft -u -i "
                             "1' and move it to SLICE with 'bart transpose'")
        shape = as_slices("the array", (dims[_SLICE], dims[_COIL], dims[_READ], dims[_PHS1]))
    size, wanted = check_file(data), 8 * math.prod(shape)
    if size != wanted:
        raise InputError(f"{data.name} has {size} bytes, but its header declares {wanted}; it is "
                         "cut short or the header is another file's, export both again")
    return shape, partial(_slices, data, shape)


def _slices(data: Path, shape: Shape, indices: Iterable[int]) -> Iterator[np.ndarray]:
    _, coils, ky, kx = shape
    with data.open("rb") as stream:
        for index in indices:
            stream.seek(8 * index * coils * ky * kx)
            values = np.frombuffer(stream.read(8 * coils * ky * kx), "<c8")
            # READ is fastest in the file
            yield finite("the array", index, values.reshape(coils, kx, ky).swapaxes(1, 2))
