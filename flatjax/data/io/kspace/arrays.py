"""k-space as an array in a file: NumPy's `.npy` and `.npz`, never unpickled, and BART's `.cfl`.

NumPy's is `[ky, kx]`, `[coil, ky, kx]` or `[slice, coil, ky, kx]`, complex, centered, the phase
encoding along the last axis. A `.npz` holds it as `kspace` and may hold `mask`, `maps` and
`affine` besides. BART's (mrirecon.github.io/bart) is complex64 of sixteen dimensions, the first
fastest, of which those of a Cartesian 2-D scan may be longer than 1: READ (0) and PHS1 (1), COIL
(3) and SLICE (13); it is centered as its own `fft -u` has it, which is as `mri.fourier` has it.

The shape that a header declares is compared with the file's size before anything is allocated. A
`.npz` is read whole, of the others one slice is in memory at a time.
"""

import math
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.lib import format as npy

from flatjax.data.io.checks import binary_mask, check_file, finite, reading
from flatjax.data.io.kspace.base import Reader, Scan, Shape, as_slices, maps_for
from flatjax.errors import InputError

_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_READ, _PHS1, _COIL, _SLICE = 0, 1, 3, 13
_LONGEST_HEADER = 2**16  # bytes, of BART's


class Array(NamedTuple):
    """An array in a file, of which nothing but its header was read."""

    field: str  # what messages call it
    shape: tuple[int, ...]
    dtype: np.dtype
    load: Callable[[], np.ndarray]  # mapped into memory if the file is not compressed

    def whole(self, *shapes: tuple[int, ...]) -> np.ndarray:
        """All of it, if it has one of these shapes."""
        if self.shape not in shapes:
            raise InputError(f"{self.field} has shape {self.shape}, expected "
                             f"{' or '.join(map(str, shapes))}; take that of this scan")
        return self.load()

    def slices(self) -> tuple[Shape, Reader]:
        """Its shape as k-space or coil maps, and a `Reader` of them."""
        shape = as_slices(self.field, self.shape)
        if self.dtype.kind != "c":
            raise InputError(f"{self.field} is {self.dtype}, expected complex numbers; for real "
                             "and imaginary parts in two arrays save a + 1j * b")

        def read(indices: Iterable[int]) -> Iterator[np.ndarray]:
            values = self.load().reshape(shape)
            for index in indices:
                yield finite(self.field, index, values[index])

        return shape, read

    def mask(self, shape: tuple[int, int]) -> np.ndarray:
        """It as a sampling mask `[ky or 1, kx]` float32 for k-space `(ky, kx)`."""
        return binary_mask(self.field, self.whole(shape, (1, shape[1]), shape[1:]))


def open_array(file: Path, name: str) -> Array:
    """The array of a `.npy`, or that of a `.npz` which has this name."""
    if file.suffix == ".npz":
        def load() -> np.ndarray:
            with np.load(file, allow_pickle=False) as archive:
                return archive[name]

        with zipfile.ZipFile(file) as archive, archive.open(f"{name}.npy") as stream:
            size = archive.getinfo(f"{name}.npy").file_size
            return Array(name, *_read_header(name, stream, size), load)
    with file.open("rb") as stream:
        return Array("the array", *_read_header("the array", stream, file.stat().st_size),
                     lambda: np.load(file, "r", allow_pickle=False))


def _read_header(field: str, stream: IO[bytes], size: int) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of an array in NumPy's format, of so many bytes with its header."""
    shape, _, dtype = _HEADERS[npy.read_magic(stream)](stream)
    if dtype.hasobject:
        raise InputError(f"{field} holds pickled Python objects, which may run any code and "
                         "are never read; save an array of complex numbers")
    wanted = stream.tell() + dtype.itemsize * math.prod(shape)
    if wanted != size:
        raise InputError(f"{field} of shape {shape} and {dtype} takes {wanted} bytes, but "
                         f"there are {size}; the file is cut short or damaged, save it again")
    return shape, dtype


def open_cfl(file: Path) -> Array:
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
    stored = (*shape[:2], shape[3], shape[2])  # READ is fastest in the file
    return Array("the array", shape, np.dtype("<c8"),
                 lambda: np.memmap(data, "<c8", "r", shape=stored).swapaxes(2, 3))


def open_numpy(file: Path) -> Scan:
    """A `.npy` of k-space, or a `.npz` with `kspace` and perhaps `mask`, `maps` and `affine`."""
    names = ["kspace"]
    if file.suffix == ".npz":
        with zipfile.ZipFile(file) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
    if "kspace" not in names:
        raise InputError(f"has no array kspace, only {', '.join(sorted(names)[:8])}; save it with "
                         "numpy.savez(file, kspace=...)")
    shape, read = open_array(file, "kspace").slices()
    found: dict[str, Any] = {}
    if "mask" in names:
        found["mask"] = open_array(file, "mask").mask(shape[2:])
    if "maps" in names:
        found["maps"] = maps_for(shape, *open_array(file, "maps").slices())
    if "affine" in names:
        affine = open_array(file, "affine").whole((4, 4))
        if affine.dtype.kind not in "iuf" or not np.isfinite(affine).all() \
                or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
            raise InputError("affine cannot be inverted or is not of real numbers, expected the "
                             "matrix from voxel indices to mm")
        found["affine"] = affine.astype(np.float64)
        found["spacing"] = tuple(np.linalg.norm(affine[:3, :3], axis=0).tolist())
    missing = tuple(name for name in ("mask", "maps", "affine") if name not in found)
    return Scan(file, file.stem, f"NumPy {file.suffix}", shape, read, missing=missing, **found)
