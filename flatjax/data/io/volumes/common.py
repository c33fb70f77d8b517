"""What the readers of volumes share."""

import gzip
import io
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from nibabel.orientations import (
    OrientationError,
    apply_orientation,
    inv_ornt_aff,
    io_orientation,
)

from flatjax.data.io.hdf5 import GREATEST_RATIO
from flatjax.errors import InputError

Spacing = tuple[float, float, float]
Stream = io.BufferedIOBase  # of bytes: a file, or what decompresses one
DAMAGED = (zlib.error, OSError, EOFError, ValueError, TypeError, KeyError, IndexError,
           AttributeError, OverflowError, RuntimeError, MemoryError, OrientationError,
           AssertionError)
_CHUNK = 1 << 24


def is_packed(file: Path) -> bool:
    """Whether a file is compressed by gzip, whatever its name."""
    with file.open("rb") as stored:
        return stored.read(2) == b"\x1f\x8b"


def open_stream(file: Path) -> Stream:
    """The bytes of a file, decompressed if it is compressed by gzip; to be closed."""
    return gzip.open(file) if is_packed(file) else file.open("rb")


def most_bytes(file: Path) -> int:
    """The most bytes that a file can hold, be they compressed."""
    return file.stat().st_size * (GREATEST_RATIO if is_packed(file) else 1)


def check_declared(file: Path, declared: int, available: int) -> None:
    """Refuse a file that declares more bytes of voxels than it can hold, before reading them.

    Raises:
        InputError: naming both.
    """
    if declared > available:
        raise InputError(f"{file}: its header declares {declared} bytes of voxels, more than the "
                         f"file can hold ({available}): it is damaged or cut short; download or "
                         "export it again")


def read_exactly(file: Path, stream: Stream, count: int) -> bytearray:
    """The next `count` bytes of a stream, taken in chunks so that memory grows with the file.

    Raises:
        InputError: if there are fewer.
    """
    content = bytearray()
    while len(content) < count:
        chunk = stream.read(min(_CHUNK, count - len(content)))
        if not chunk:
            raise InputError(f"{file}: holds {len(content)} bytes of voxels, expected {count}: it "
                             "is cut short; download or export it again")
        content += chunk
    return content


def check_volume(file: Path, shape: Sequence[int], dtype: np.dtype) -> None:
    """Refuse what is not one 3-D volume of real numbers.

    Raises:
        InputError: naming the shape or the type.
    """
    if len(shape) != 3 or min(shape) < 1:
        raise InputError(f"{file}: its shape is {tuple(shape)}, expected one 3-D volume; extract "
                         "one, for instance with nibabel.four_to_three")
    if dtype.kind not in "iuf":
        raise InputError(f"{file}: its voxels are {dtype}, expected real numbers; save the "
                         "magnitude")


def to_ras(file: Path, volume: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Order and flip the axes of a volume so that they point right, anterior and superior.

    Args:
        file: for the error message.
        volume: of three axes.
        affine: `[>= 3, 3 or 4]`, its first columns the steps in mm along each axis to the
            patient's right, anterior and superior; the fourth, where there is one that is finite,
            the position of the first voxel, otherwise 0.

    Returns:
        `(volume, affine)`: `[x, y, z]` float32, contiguous, and `[4, 4]` from its indices to mm.

    Raises:
        InputError: for voxels without a size, or axes that do not span space.
    """
    given = np.asarray(affine, np.float64)[:3]
    square = np.eye(4)
    square[:3, :3] = given[:, :3]
    if given.shape[1] > 3 and np.isfinite(given[:, 3]).all():
        square[:3, 3] = given[:, 3]
    sizes = voxel_sizes(square)
    if not all(np.isfinite(size) and size > 0 for size in sizes):
        raise InputError(f"{file}: voxels of {' x '.join(f'{size:g}' for size in sizes)} mm, "
                         "expected three positive sizes; mend the directions in its header")
    orientation = io_orientation(square)
    if not np.isfinite(orientation).all():
        raise InputError(f"{file}: its axes do not point in three different directions; mend the "
                         "directions in its header")
    turned = apply_orientation(volume, orientation)
    placed = square @ inv_ornt_aff(orientation, volume.shape)
    return np.ascontiguousarray(turned, np.float32), placed


def voxel_sizes(affine: np.ndarray) -> Spacing:
    """Size in mm of the voxels of an affine `[>= 3, >= 3]`."""
    x, y, z = np.sqrt(np.sum(np.square(affine[:3, :3]), axis=0)).tolist()
    return x, y, z


def first_line(error: BaseException) -> str:
    """The first line of what an exception says, or its name."""
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
