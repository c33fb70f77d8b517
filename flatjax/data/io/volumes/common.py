"""What the readers of volumes share."""

import gzip
import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

from flatjax.errors import InputError

Spacing = tuple[float, float, float]
# Voxels, the `[>= 3, 4]` affine of their indices, and whether the file tells where its axes point.
Stored = tuple[np.ndarray, np.ndarray, bool]
Stream = io.BufferedIOBase  # of bytes: a file, or what decompresses one
CHUNK = 1 << 24  # bytes that are read at once


def is_packed(file: Path) -> bool:
    """Whether a file is compressed by gzip, whatever its name."""
    with file.open("rb") as stored:
        return stored.read(2) == b"\x1f\x8b"


def open_stream(file: Path) -> Stream:
    """The bytes of a file, decompressed if it is compressed by gzip; to be closed."""
    return gzip.open(file) if is_packed(file) else file.open("rb")


def read_most(stream: Stream, count: int) -> bytearray:
    """The next `count` bytes of a stream, or all that are left.

    They are taken in chunks, so that memory grows with the file and not with what it declares.
    """
    content = bytearray()
    while chunk := stream.read(min(CHUNK, count - len(content))):
        content += chunk
    return content


def read_voxels(stream: Stream, shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
    """The voxels `[n]` that follow in a stream; fewer raise `InputError`."""
    count = dtype.itemsize * math.prod(shape)
    content = read_most(stream, count)
    if len(content) < count:
        raise InputError(f"holds {len(content)} bytes of voxels, expected {count} for "
                         f"{' x '.join(map(str, shape))} of {dtype}: it is cut short; export it "
                         "again")
    return np.frombuffer(content, dtype)


def check_volume(shape: Sequence[int], dtype: np.dtype) -> None:
    """Refuse what is not one 3-D volume of real numbers, before it is read."""
    if len(shape) != 3 or min(shape) < 1:
        raise InputError(f"its shape is {tuple(shape)}, expected one 3-D volume; extract one, for "
                         "instance with nibabel.four_to_three")
    if dtype.kind not in "iuf":
        raise InputError(f"its voxels are {dtype}, expected real numbers; save the magnitude")


def to_ras(volume: np.ndarray, affine: np.ndarray
           ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Order and flip the axes of a volume so that they point right, anterior and superior.

    Of any three axes and an affine `[>= 3, 4]` to mm in these directions, whose position counts as
    0 where it is not finite: `[x, y, z]` float32, contiguous, `[4, 4]` from its indices to mm, and
    the orientation `[3, 2]` that the volume had, as nibabel has it.
    """
    square = np.eye(4)
    square[:3] = affine[:3]
    if not np.isfinite(square[:3, 3]).all():
        square[:3, 3] = 0
    sizes = voxel_sizes(square)
    if not all(0 < size < np.inf for size in sizes):
        raise InputError(f"voxels of {' x '.join(f'{size:g}' for size in sizes)} mm, expected "
                         "three positive sizes; mend the directions in its header")
    orientation = io_orientation(square)
    if not np.isfinite(orientation).all():
        raise InputError("its axes do not point in three different directions; mend those in its "
                         "header")
    turned = apply_orientation(volume, orientation)
    placed = square @ inv_ornt_aff(orientation, volume.shape)
    return np.ascontiguousarray(turned, np.float32), placed, orientation


def voxel_sizes(affine: np.ndarray) -> Spacing:
    """Size in mm of the voxels of an affine `[>= 3, >= 3]`."""
    x, y, z = np.sqrt(np.sum(np.square(affine[:3, :3]), axis=0)).tolist()
    return x, y, z
