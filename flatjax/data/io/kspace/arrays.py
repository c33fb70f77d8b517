"""k-space in NumPy's `.npy` and `.npz`, read slice by slice and never unpickled.

An array is `[ky, kx]`, `[coil, ky, kx]` or `[slice, coil, ky, kx]`, complex, centered, the phase
encoding along the last axis. A `.npz` holds it as `kspace` and may hold `mask`, `maps` and
`affine` besides. The shape that a header declares is compared with the file's size before
anything is allocated. In C order, as NumPy saves by default, one slice is in memory at a time.
"""

import math
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.lib import format as npy

from flatjax.data.io.checks import binary_mask, finite
from flatjax.data.io.kspace.base import Reader, Scan, Shape, as_slices, maps_for
from flatjax.errors import InputError

_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


class Array(NamedTuple):
    """An array in a file."""

    file: Path
    member: str  # of a `.npz`; "" for a `.npy`
    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool  # whether its first axis runs fastest
    offset: int  # bytes before it

    @property
    def field(self) -> str:
        """What messages call it."""
        return self.member.removesuffix(".npy") or "the array"

    def whole(self, *shapes: tuple[int, ...]) -> np.ndarray:
        """All of it, if it has one of these shapes."""
        if self.shape not in shapes:
            raise InputError(f"{self.field} has shape {self.shape}, expected "
                             f"{' or '.join(map(str, shapes))}; take that of this scan")
        order = "F" if self.fortran else "C"
        with _opened(self.file, self.member) as (stream, _):
            if not self.member:
                return np.asarray(np.memmap(self.file, self.dtype, "r", self.offset, self.shape,
                                            order))
            stream.seek(self.offset)
            return np.frombuffer(stream.read(), self.dtype).reshape(self.shape, order=order)

    def slices(self) -> tuple[Shape, Reader]:
        """Its shape as k-space or coil maps, and a `Reader` of them."""
        shape = as_slices(self.field, self.shape)
        if self.dtype.kind != "c":
            raise InputError(f"{self.field} is {self.dtype}, expected complex numbers; for real "
                             "and imaginary parts in two arrays save a + 1j * b")
        return shape, partial(self._read, shape)

    def mask(self, shape: tuple[int, int]) -> np.ndarray:
        """It as a sampling mask `[ky or 1, kx]` float32 for k-space `(ky, kx)`."""
        return binary_mask(self.field, self.whole(shape, (1, shape[1]), shape[1:]))

    def _read(self, shape: Shape, indices: Iterable[int]) -> Iterator[np.ndarray]:
        # in Fortran order the slices are spread over the file
        whole = self.whole(self.shape).reshape(shape) if self.fortran else None
        count = self.dtype.itemsize * math.prod(shape[1:])
        with _opened(self.file, self.member) as (stream, _):
            for index in indices:
                if whole is None:
                    stream.seek(self.offset + index * count)
                    one = np.frombuffer(stream.read(count), self.dtype).reshape(shape[1:])
                else:
                    one = whole[index]
                yield finite(self.field, index, one)


def open_array(file: Path, name: str) -> Array:
    """The array of a `.npy`, or that of a `.npz` which has this name; nothing of it is read."""
    member = f"{name}.npy" if file.suffix == ".npz" else ""
    with _opened(file, member) as (stream, size):
        shape, fortran, dtype = _HEADERS[npy.read_magic(stream)](stream)
        array = Array(file, member, shape, dtype, fortran, stream.tell())
    if dtype.hasobject:
        raise InputError(f"{array.field} holds pickled Python objects, which may run any code and "
                         "are never read; save an array of complex numbers")
    wanted = array.offset + dtype.itemsize * math.prod(shape)
    if wanted != size:
        raise InputError(f"{array.field} of shape {shape} and {dtype} takes {wanted} bytes, but "
                         f"there are {size}; the file is cut short or damaged, save it again")
    return array


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


@contextmanager
def _opened(file: Path, member: str) -> Iterator[tuple[IO[bytes], int]]:
    """The stream of an array with its header, and its length."""
    if member:
        with zipfile.ZipFile(file) as archive, archive.open(member) as stream:
            yield stream, archive.getinfo(member).file_size
    else:
        with file.open("rb") as stream:
            yield stream, file.stat().st_size
