"""k-space in NumPy's `.npy` and `.npz`, read slice by slice and never unpickled.

An array is `[ky, kx]`, `[coil, ky, kx]` or `[slice, coil, ky, kx]`, complex, centered, the phase
encoding along the last axis. A `.npz` holds it as `kspace` and may hold `mask`, `maps` and
`affine` besides. The shape that a header declares is compared with the file's size before
anything is allocated. In C order, as NumPy saves by default, one slice is in memory at a time.
"""

import math
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from flatjax.data.io.checks import check_file
from flatjax.data.io.kspace.base import (
    Reader,
    Scan,
    as_slices,
    binary_mask,
    check_mask,
    maps_for,
    to_complex64,
)
from flatjax.errors import InputError

_DAMAGED = (OSError, ValueError, EOFError, KeyError, TypeError, SyntaxError, RecursionError,
            OverflowError, NotImplementedError, RuntimeError, tokenize.TokenError,
            zipfile.BadZipFile, zlib.error)


class Stored(NamedTuple):
    """An array in a file.

    Attributes:
        file: path.
        member: of a `.npz`; "" for a `.npy`.
        shape, dtype: of the array.
        fortran: whether its first axis runs fastest.
        offset: bytes before it.
    """

    file: Path
    member: str
    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool
    offset: int

    @property
    def field(self) -> str:
        """What messages call it."""
        return self.member.removesuffix(".npy") or "the array"


def open_npy(file: Path) -> Scan:
    """A `.npy` of k-space.

    Raises:
        InputError: as said above, naming the file.
    """
    return _scan(file, "NumPy .npy", {"kspace": _array(file)})


def open_npz(file: Path) -> Scan:
    """A `.npz` with `kspace`, and perhaps `mask`, `maps` and `affine`.

    Raises:
        InputError: as said above, naming file and field.
    """
    check_file(file)
    with _damage(file), zipfile.ZipFile(file) as archive:
        names = {name.removesuffix(".npy"): name for name in archive.namelist()}
    if "kspace" not in names:
        raise InputError(f"{file}: has no array kspace, only "
                         f"{', '.join(sorted(names)[:8]) or 'nothing at all'}; save it with "
                         "numpy.savez(file, kspace=...)")
    wanted = ("kspace", "mask", "maps", "affine")
    return _scan(file, "NumPy .npz",
                 {name: _array(file, names[name]) for name in wanted if name in names})


def open_mask(file: Path) -> np.ndarray:
    """A sampling mask from a `.npy`, or the `mask` of a `.npz`: `[ky or 1, kx]` float32.

    Raises:
        InputError: not such a file, or not a mask.
    """
    if file.suffix not in (".npy", ".npz"):
        raise InputError(f"{file}: expected a mask as .npy or .npz; save it with numpy.save")
    stored = _array(file, "mask.npy" if file.suffix == ".npz" else "")
    return _small(stored, binary_mask)


def open_maps(file: Path) -> tuple[tuple[int, int, int, int], Reader]:
    """Coil maps from a `.npy`, or the `maps` of a `.npz`: their shape and `Reader`.

    Raises:
        InputError: not such a file, or not maps.
    """
    return _reader(_array(file, "maps.npy" if file.suffix == ".npz" else ""))


def _scan(file: Path, form: str, arrays: dict[str, Stored]) -> Scan:
    stored = arrays["kspace"]
    shape, read = _reader(stored)
    found = {}
    if "mask" in arrays:
        found["mask"] = _small(arrays["mask"], binary_mask)
        check_mask(file, "mask", found["mask"], shape[2:])
    if "maps" in arrays:
        found["maps"] = maps_for(shape, file, "maps", *_reader(arrays["maps"]))
    if "affine" in arrays:
        found["affine"] = _small(arrays["affine"], _affine)
        found["spacing"] = tuple(np.linalg.norm(found["affine"][:3, :3], axis=0).tolist())
    missing = tuple(name for name in ("mask", "maps", "affine") if name not in found)
    return Scan(file, file.stem, form, shape, read, missing=missing, **found)


def _reader(stored: Stored) -> tuple[tuple[int, int, int, int], Reader]:
    shape = as_slices(stored.file, stored.field, stored.shape)
    if stored.dtype.kind != "c":
        raise InputError(f"{stored.file}: {stored.field} is {stored.dtype}, expected complex "
                         "numbers; for real and imaginary parts in two arrays save a + 1j * b")
    return shape, partial(_slices, stored, shape)


def _affine(file: Path, field: str, values: np.ndarray) -> np.ndarray:
    if values.shape != (4, 4) or values.dtype.kind not in "iuf" \
            or not np.isfinite(values).all() or abs(np.linalg.det(values[:3, :3])) < 1e-9:
        raise InputError(f"{file}: {field} is {values.dtype} of shape {values.shape}, expected "
                         "an invertible 4 x 4 matrix of real numbers")
    return values.astype(np.float64)


@contextmanager
def _damage(file: Path) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except _DAMAGED as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{file}: is not a NumPy file or is cut short or damaged ({reason}); save "
                         "it again") from error


@contextmanager
def _bytes(file: Path, member: str) -> Iterator[tuple[IO[bytes], int]]:
    """The stream of an array with its header, and its length."""
    size = check_file(file)
    if not member:
        with file.open("rb") as stream:
            yield stream, size
    else:
        with zipfile.ZipFile(file) as archive, archive.open(member) as stream:
            yield stream, archive.getinfo(member).file_size


def _array(file: Path, member: str = "") -> Stored:
    """What the header says, compared with the size of the file."""
    with _damage(file), _bytes(file, member) as (stream, size):
        version = np.lib.format.read_magic(stream)
        read = {(1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0}.get(version)
        if read is None:
            raise InputError(f"{file}: is of version {version} of NumPy's format, expected 1.0 or "
                             "2.0; save it without named fields")
        shape, fortran, dtype = read(stream)
        stored = Stored(file, member, shape, dtype, fortran, stream.tell())
    if dtype.hasobject:
        raise InputError(f"{file}: {stored.field} holds pickled Python objects, which may run any "
                         "code and are never read; save an array of complex numbers")
    wanted = stored.offset + dtype.itemsize * math.prod(shape)
    if wanted != size:
        raise InputError(f"{file}: {stored.field} of shape {shape} and {dtype} takes {wanted} "
                         f"bytes, but there are {size}; the file is cut short or damaged, save it "
                         "again")
    return stored


def _small(stored: Stored, check: Callable[[Path, str, np.ndarray], np.ndarray]) -> np.ndarray:
    """An array that fits in memory whole, `check(file, field, values)`ed."""
    if stored.dtype.itemsize * math.prod(stored.shape) > 2**28:
        raise InputError(f"{stored.file}: {stored.field} has shape {stored.shape}, expected at "
                         "most one number per sample of a slice")
    with _damage(stored.file), _bytes(stored.file, stored.member) as (stream, _):
        stream.seek(stored.offset)
        values = np.frombuffer(stream.read(), stored.dtype).reshape(
            stored.shape, order="F" if stored.fortran else "C")
    return check(stored.file, stored.field, values)


def _slices(stored: Stored, shape: tuple[int, int, int, int],
            indices: Iterable[int]) -> Iterator[np.ndarray]:
    file, count = stored.file, math.prod(shape[1:])
    with _damage(file), _bytes(file, stored.member) as (stream, _):
        whole = (_fortran(stored, stream).reshape(shape) if stored.fortran and shape[0] > 1
                 else None)
        for index in indices:
            if whole is not None:
                one = whole[index]
            else:
                stream.seek(stored.offset + index * count * stored.dtype.itemsize)
                one = np.frombuffer(stream.read(count * stored.dtype.itemsize), stored.dtype)
                one = one.reshape(shape[1:], order="F" if stored.fortran else "C")
            yield to_complex64(file, stored.field, index, one)


def _fortran(stored: Stored, stream: IO[bytes]) -> np.ndarray:
    """An array whose slices are spread over the file: mapped, or read whole from an archive."""
    if not stored.member:
        return np.memmap(stored.file, stored.dtype, "r", stored.offset, stored.shape, order="F")
    stream.seek(stored.offset)
    return np.frombuffer(stream.read(), stored.dtype).reshape(stored.shape, order="F")
