"""k-space as an array in a file: NumPy's, never unpickled, BART's, MATLAB's, and of plain HDF5.

NumPy's is `[ky, kx]`, `[coil, ky, kx]` or `[slice, coil, ky, kx]`, complex, centered, the phase
encoding along the last axis. A `.npz` holds it as `kspace` and may hold `mask`, `maps` and
`affine` besides. So may an HDF5 file without fastMRI's header, where three axes are refused, and
one of MATLAB 7.3 (`.mat`), whose arrays are as in MATLAB, or `[ky, kx, coil, slice]`. BART's
(mrirecon.github.io/bart) is complex64 of sixteen dimensions, the first fastest, of which those of
a Cartesian 2-D scan may be longer than 1: two of READ (0), PHS1 (1) and PHS2 (2), COIL (3) and
SLICE (13); it is centered as its own `fft -u` has it, which is as `mri.fourier` has it.

The shape that a header declares is compared with the file's size before anything is allocated. Of
`.npy` and `.cfl` one slice is in memory at a time, the others are read whole, once.
"""

import math
import zipfile
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import IO, Any, NamedTuple

import h5py
import numpy as np
from numpy.lib import format as npy

from flatjax.data.io.checks import binary_mask, check_file, finite, reading
from flatjax.data.io.hdf5 import isolated, stored_dataset
from flatjax.data.io.kspace.base import Reader, Scan, Shape, as_slices, maps_for
from flatjax.errors import InputError

_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_COIL, _SLICE = 3, 13
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
        if self.dtype.kind != "c":
            raise InputError(f"{self.field} is {self.dtype}, expected complex numbers; for real "
                             "and imaginary parts a and b save a + 1j * b")
        shape = as_slices(self.field, self.shape)

        def read(indices: Iterable[int]) -> Iterator[np.ndarray]:
            values = self.load().reshape(shape)
            for index in indices:
                yield finite(self.field, index, values[index])

        return shape, read

    def mask(self, shape: tuple[int, int]) -> np.ndarray:
        """It as a sampling mask `[ky or 1, kx]` float32 for k-space `(ky, kx)`."""
        values = self.whole(shape, (1, shape[1]), shape[1:], (shape[0], 1))
        mask = binary_mask(self.field, values)
        return mask if len(mask) == 1 else np.broadcast_to(mask, shape)


def open_array(file: Path, name: str) -> Array:
    """The array of a `.npy`, or that of a `.npz` or HDF5 file which has this name."""
    suffix = file.suffix.lower()
    if suffix == ".npz":
        @cache
        def load() -> np.ndarray:
            with np.load(file, allow_pickle=False) as archive:
                return archive[name]

        with zipfile.ZipFile(file) as archive, archive.open(f"{name}.npy") as stream:
            size = archive.getinfo(f"{name}.npy").file_size
            return Array(name, *_read_header(name, stream, size), load)
    if suffix == ".npy":
        with file.open("rb") as stream:
            return Array("the array", *_read_header("the array", stream, file.stat().st_size),
                         lambda: np.load(file, "r", allow_pickle=False))
    return _open_hdf5(file, name, suffix == ".mat")


def _open_hdf5(file: Path, name: str, matlab: bool) -> Array:
    """The array of an HDF5 file, the axes of MATLAB's as those of NumPy's."""
    shape, dtype = isolated(_stored, file, name)
    parts = dtype.names == ("real", "imag")  # as MATLAB and others write complex numbers
    if (dtype["real"] if parts else dtype).kind not in "biufc":
        raise InputError(f"{name} is {dtype}, expected numbers; save it as such")
    if name == "kspace" and len(shape) == 3 and not matlab:
        raise InputError(f"kspace has shape {shape} and there is no ismrmrd_header, so the first "
                         "axis may be slices or coils; save it as [slice, coil, ky, kx]")
    shape = shape[::-1] if matlab else shape
    order = tuple(range(len(shape)))
    if matlab and len(shape) in (3, 4) and (parts or dtype.kind == "c"):
        if shape[2] < min(shape[:2]):  # there are fewer coils than lines
            order = (*order[:1:-1], 0, 1)
        elif shape[-3] >= min(shape[-2:]):
            raise InputError(f"{name} has shape {shape}, of which {shape[-3]} or {shape[2]} may be "
                             "coils, expected fewer than lines; save it with numpy.save")

    @cache
    def load() -> np.ndarray:
        with h5py.File(file) as content:
            values = content[name][()]
        values = values["real"] + 1j * values["imag"] if parts else values
        return values.T.transpose(order) if matlab else values

    return Array(name, tuple(shape[axis] for axis in order),
                 np.dtype(np.complex64) if parts else dtype, load)


def _stored(file: Path, name: str) -> tuple[tuple[int, ...], np.dtype]:
    with h5py.File(file) as content:
        dataset = stored_dataset(content, name)
        return dataset.shape, dataset.dtype


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
    data, header = (file.with_suffix(suffix if file.suffix.islower() else suffix.upper())
                    for suffix in (".cfl", ".hdr"))
    with reading(header), header.open(errors="replace") as stream:
        _, _, text = stream.read(_LONGEST_HEADER).partition("# Dimensions\n")
        dims = [int(word) for word in text.splitlines()[0].split()]
        dims += [1] * (_SLICE + 1 - len(dims))
        # the two axes in space that are longest: a transform leaves a 3-D scan's READ at 1
        ky, kx = sorted(sorted(range(3), key=lambda axis: dims[axis] == 1)[:2])
        longer = [f"{axis} of {n}" for axis, n in enumerate(dims)
                  if n != 1 and axis not in (ky, kx, _COIL, _SLICE)]
        if longer:
            raise InputError(f"has dimension {', '.join(longer)}, expected more than 1 only of two "
                             "of READ (0), PHS1 (1) and PHS2 (2), of COIL (3) and SLICE (13); "
                             "extract one with 'bart slice', or make slices of a 3-D scan along "
                             "its readout: 'bart fft -u -i 1 scan a' and 'bart transpose 0 13 a b'")
        shape = as_slices("the array", (dims[_SLICE], dims[_COIL], dims[ky], dims[kx]))
    size, wanted = check_file(data), 8 * math.prod(shape)
    if size != wanted:
        raise InputError(f"{data.name} has {size} bytes, but its header declares {wanted}; it is "
                         "cut short or the header is another file's, export both again")
    stored = (*shape[:2], shape[3], shape[2])  # ky is fastest in the file
    return Array("the array", shape, np.dtype("<c8"),
                 lambda: np.memmap(data, "<c8", "r", shape=stored).swapaxes(2, 3))


def array_names(file: Path) -> list[str]:
    """The names that `open_array` may be asked for; of a `.npy`, kspace."""
    if file.suffix.lower() == ".npy":
        return ["kspace"]
    if file.suffix.lower() == ".npz":
        with zipfile.ZipFile(file) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    if not h5py.is_hdf5(file) and file.suffix.lower() == ".mat":
        raise InputError("is not of MATLAB 7.3; save it with save('scan.mat', 'kspace', '-v7.3')")
    with h5py.File(file) as content:
        return sorted(map(str, content))  # those that are not Unicode are bytes


def open_arrays(file: Path, form: str) -> Scan:
    """k-space of a `.npy`, or `kspace` of a file of arrays, perhaps with mask, maps and affine."""
    names = array_names(file)
    if "kspace" not in names:
        raise InputError(f"has no array kspace, only {', '.join(names[:8])}; rename the k-space "
                         "to kspace")
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
    return Scan(file, file.stem, form, shape, read, missing=missing, **found)
