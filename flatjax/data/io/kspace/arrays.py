"""k-space as an array in a file: NumPy's, never unpickled, BART's, MATLAB's, and of plain HDF5.

NumPy's is `[ky, kx]`, `[coil, ky, kx]` or `[slice, coil, ky, kx]`, complex, centered, the phase
encoding along the last axis. A `.npz` holds it as `kspace` and may hold `mask`, `maps` and
`affine` besides. So may an HDF5 file without fastMRI's header, where three axes are refused, and
one of MATLAB 7.3 (`.mat`), whose arrays are as in MATLAB, or `[ky, kx, coil, slice]`. BART's
(mrirecon.github.io/bart) is complex64 of sixteen dimensions, the first fastest, of which those of
a Cartesian scan may be longer than 1: READ (0), PHS1 (1), PHS2 (2), COIL (3), TE (5) or TIME (10),
and SLICE (13); it is centered as its own `fft -u` has it, which is as `mri.fourier` has it. If all
of the first three are, the scan is 3-D. Other axes than these are told by their names in `AXES`.

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
from flatjax.data.io.kspace.volume import along_readout
from flatjax.errors import InputError

_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
AXES = ("frame", "slice", "kz", "coil", "ky", "kx")  # kz of a 3-D scan, whose readout is ky
_BART = {3: "coil", 5: "frame", 10: "frame", 13: "slice"}
_STANDS_OUT = 30  # times the energy, which no slice has against its neighbors
_LONGEST_HEADER = 2**16  # bytes, of BART's


class Array(NamedTuple):
    """An array in a file, of which nothing but its header was read."""

    field: str  # what messages call it
    shape: tuple[int, ...]
    dtype: np.dtype
    load: Callable[[], np.ndarray]  # mapped into memory if the file is not compressed
    axes: tuple[str, ...] = ()  # names of its axes, of `AXES`; by default the last of four

    @property
    def frames(self) -> int:
        """How many frames it has."""
        return self.shape[self.axes.index("frame")] if "frame" in self.axes else 1

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
        if not self.axes:
            as_slices(self.field, self.shape)
        axes = self.axes or ("slice", "coil", "ky", "kx")[-len(self.shape):]
        sizes = [dict(zip(axes, self.shape, strict=True)).get(name, 1) for name in AXES]
        shape = as_slices(self.field, (math.prod(sizes[:3]), *sizes[3:]))

        def read(indices: Iterable[int]) -> Iterator[np.ndarray]:
            values = self.load().transpose([axes.index(name) for name in AXES if name in axes])
            values = np.expand_dims(values, tuple(i for i in range(6) if AXES[i] not in axes))
            for index in indices:
                yield finite(self.field, index, values[np.unravel_index(index, sizes[:3])])

        return along_readout(shape, read, sizes[0]) if "kz" in axes else (shape, read)

    def named(self, axes: tuple[str, ...]) -> "Array":
        """With axes of these names; InputError for others than `AXES`, or another number."""
        if len(axes) != len(self.shape) or len({*axes}) < len(axes) or {*axes} - {*AXES} \
                or not {"ky", "kx"} <= {*axes} or {"slice", "kz"} <= {*axes}:
            raise InputError(f"axes are {','.join(axes)} of shape {self.shape}, expected a name "
                             f"for each, of {', '.join(AXES)}: always ky and kx, and not both "
                             "slice and kz")
        return self._replace(axes=axes)

    def mask(self, shape: tuple[int, int]) -> np.ndarray:
        """It as a sampling mask `[ky or 1, kx]` float32 for k-space `(ky, kx)`."""
        values = self.whole(shape, (1, shape[1]), shape[1:], (shape[0], 1))
        mask = binary_mask(self.field, values)
        return mask if len(mask) == 1 else np.broadcast_to(mask, shape)


def open_array(file: Path, name: str, axes: tuple[str, ...] = ()) -> Array:
    """The array of a `.npy`, or that of a `.npz` or HDF5 file which has this name."""
    found = _open_array(file, name, bool(axes))
    return found.named(axes) if axes else found


def _open_array(file: Path, name: str, named: bool) -> Array:
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
    return _open_hdf5(file, name, suffix == ".mat", named)


def _open_hdf5(file: Path, name: str, matlab: bool, named: bool) -> Array:
    """The array of an HDF5 file, the axes of MATLAB's as those of NumPy's, if not to be named."""
    shape, dtype = isolated(_stored, file, name)
    parts = dtype.names == ("real", "imag")  # as MATLAB and others write complex numbers
    if (dtype["real"] if parts else dtype).kind not in "biufc":
        raise InputError(f"{name} is {dtype}, expected numbers; save it as such")
    if name == "kspace" and len(shape) == 3 and not (matlab or named):
        raise InputError(f"kspace has shape {shape} and there is no ismrmrd_header, so the first "
                         "axis may be slices or coils; say --axes=slice,ky,kx or coil,ky,kx")
    shape = shape[::-1] if matlab else shape
    order = tuple(range(len(shape)))
    if matlab and not named and len(shape) in (3, 4) and (parts or dtype.kind == "c"):
        if shape[2] < min(shape[:2]):  # there are fewer coils than lines
            order = (*order[:1:-1], 0, 1)
        elif shape[-3] >= min(shape[-2:]):
            raise InputError(f"{name} has shape {shape}, of which {shape[-3]} or {shape[2]} may be "
                             "coils, expected fewer than lines; say --axes=ky,kx,coil or the like")

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
        dims += [1] * (3 - len(dims))
    space = [0, 1, 2]
    if 1 in dims[:3]:  # 2-D, of the two axes in space that are longest
        space = sorted(sorted(space, key=lambda axis: dims[axis] == 1)[:2])
    names = dict(zip(space, ("ky", "kx", "kz"), strict=False)) | _BART
    kept = [axis for axis, n in enumerate(dims) if n != 1 or axis in space]
    axes = tuple(names.get(axis, f"dimension {axis} of {dims[axis]}") for axis in kept)
    if {*axes} - {*AXES} or axes.count("frame") > 1 or {"slice", "kz"} <= {*axes}:
        raise InputError(f"has axes {', '.join(axes)}, expected more than 1 only of READ (0), PHS1 "
                         "(1), PHS2 (2), COIL (3), one of TE (5) and TIME (10), and in 2-D SLICE "
                         "(13); extract a part with 'bart slice'")
    size, wanted = check_file(data), 8 * math.prod(dims)
    if size != wanted:
        raise InputError(f"{data.name} has {size} bytes, but its header declares {wanted}; it is "
                         "cut short or the header is another file's, export both again")
    shape = tuple(dims[axis] for axis in kept)
    return Array("the array", shape, np.dtype("<c8"),
                 lambda: np.memmap(data, "<c8", "r", shape=shape, order="F"),
                 axes)


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


def open_arrays(file: Path, form: str, name: str = "", axes: tuple[str, ...] = ()) -> Scan:
    """k-space of a `.npy`, or an array of a file of several, perhaps with mask, maps and affine."""
    names, wanted = array_names(file), name or "kspace"
    if wanted not in names:
        raise InputError(f"has no array {wanted}, only {', '.join(names[:8])}; name the k-space "
                         "with --array=NAME, or rename it to kspace")
    array = open_array(file, wanted, axes)
    shape, read = array.slices()
    if not axes and shape[0] >= 8:
        first, middle, last = (np.sum(np.abs(one).astype(float) ** 2)
                               for one in read([n * shape[0] // 4 for n in (1, 2, 3)]))
        if middle > _STANDS_OUT * max(first, last):
            raise InputError(f"the first axis, of {shape[0]}, has most of its energy in its "
                             "middle, as kz of a 3-D scan has; say --axes=kz,coil,ky,kx if it is, "
                             "with ky as the readout, or --axes=slice,coil,ky,kx if not")
    found: dict[str, Any] = {"name": f"{file.stem}_{name}"} if name else {"name": file.stem}
    found["frames"] = array.frames
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
    return Scan(file=file, form=form, shape=shape, read=read, missing=missing, **found)
