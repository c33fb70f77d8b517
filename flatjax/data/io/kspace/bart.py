"""k-space in BART's `.cfl` and `.hdr` (mrirecon.github.io/bart): complex64, first axis fastest.

Of BART's sixteen dimensions those of a Cartesian 2-D scan may be longer than 1: READ (0) and PHS1
(1), COIL (3) and SLICE (13). k-space is centered as BART's own `fft -u` has it, which is as
`mri.fourier` has it.
"""

import math
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from flatjax.data.io.checks import check_file
from flatjax.data.io.kspace.base import Reader, Scan, as_slices, to_complex64
from flatjax.errors import InputError

READ, PHS1, COIL, SLICE = 0, 1, 3, 13
_NAMES = ("READ", "PHS1", "PHS2", "COIL", "MAPS", "TE", "COEFF", "COEFF2", "ITER", "CSHIFT", "TIME",
          "TIME2", "LEVEL", "SLICE", "AVG", "BATCH")
_LONGEST_HEADER = 2**16  # bytes


def open_cfl(file: Path) -> Scan:
    """A `.cfl`, or its `.hdr`, of k-space.

    Raises:
        InputError: one of the two files is missing, or the header is not one, declares another
            size than the data have, or a dimension that is not supported.
    """
    shape, read = open_maps(file)
    return Scan(file.with_suffix(".cfl"), file.stem, "BART .cfl", shape, read)


def open_maps(file: Path) -> tuple[tuple[int, int, int, int], Reader]:
    """Coil maps from a `.cfl`, as of `bart ecalib -m1`: their shape and `Reader`.

    Raises:
        InputError: as `open_cfl`.
    """
    data, header = file.with_suffix(".cfl"), file.with_suffix(".hdr")
    size = check_file(data)
    if check_file(header) > _LONGEST_HEADER:
        raise InputError(f"{header}: is longer than {_LONGEST_HEADER} bytes, expected BART's text "
                         "header; export it again")
    dims = _dimensions(header)
    longer = [f"{name} ({axis}) of {n}" for axis, (name, n) in
              enumerate(zip(_NAMES, dims, strict=True))
              if n > 1 and axis not in (READ, PHS1, COIL, SLICE)]
    if longer:
        raise InputError(f"{header}: has dimension {', '.join(longer)}, expected more than 1 only "
                         "of READ (0), PHS1 (1), COIL (3) and SLICE (13); extract one with 'bart "
                         "slice', or for a 3-D scan transform its readout with 'bart fft -u -i 1' "
                         "and move it to SLICE with 'bart transpose'")
    shape = as_slices(header, "the array", (dims[SLICE], dims[COIL], dims[READ], dims[PHS1]))
    wanted = 8 * math.prod(dims)
    if size != wanted:
        raise InputError(f"{data}: has {size} bytes, but its header declares {wanted}; it is cut "
                         "short or the header is another file's, export both again")
    return shape, partial(_slices, data, shape)


def _dimensions(header: Path) -> list[int]:
    """The sixteen dimensions: the line after `# Dimensions`."""
    lines = header.read_bytes().decode("ascii", "replace").splitlines()
    at = next((i for i, line in enumerate(lines) if line.strip() == "# Dimensions"), len(lines))
    words = lines[at + 1].split() if at + 1 < len(lines) else []
    if not 1 <= len(words) <= len(_NAMES) or not all(
            word.isascii() and word.isdigit() and 0 < len(word) < 10 and int(word)
            for word in words):
        raise InputError(f"{header}: has no line of up to 16 whole numbers above 0 after "
                         "'# Dimensions', as BART writes it; export it again")
    return [int(word) for word in words] + [1] * (len(_NAMES) - len(words))


def _slices(data: Path, shape: tuple[int, int, int, int],
            indices: Iterable[int]) -> Iterator[np.ndarray]:
    count = shape[1] * shape[2] * shape[3]
    with data.open("rb") as stream:
        for index in indices:
            stream.seek(8 * index * count)
            values = np.frombuffer(stream.read(8 * count), "<c8")
            if values.size != count:
                raise InputError(f"{data}: ends within slice {index}; export it again")
            # [coil, phs1, read] as it lies in the file
            one = values.reshape(shape[1], shape[3], shape[2]).swapaxes(1, 2)
            yield to_complex64(data, "the array", index, one)
