"""What every reader of k-space gives: a `Scan`, whose slices are read when they are needed."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from flatjax.data.io.checks import first_signal, reading
from flatjax.errors import InputError

# `indices -> iterator` over those slices; rising indices are read in one go.
Reader = Callable[[Iterable[int]], Iterator[np.ndarray]]
Shape = tuple[int, int, int, int]  # (slices, coils, ky, kx)
LARGEST_SLICE = 2**32  # bytes: what no scanner's slice has, but a damaged header may declare


class Scan(NamedTuple):
    """The k-space of a file, or of a volume that it is simulated from."""

    file: Path
    name: str  # for the files made of it: the file's without its suffix
    form: str  # name of the format
    shape: Shape  # with several frames the slices of the first, then those of the next
    read: Reader  # of k-space, each slice `[coil, ky, kx]` complex64 and finite
    mask: np.ndarray | None = None  # the file's, `[ky or 1, kx]` float32 of 0 and 1
    maps: Reader | None = None  # of the file's coil sensitivities, `[coil, y, x]` complex64
    calibration: Reader | None = None  # of k-space for the maps alone; a slice may be all zero
    noise: np.ndarray | None = None  # covariance of a sample's noise, `[coil, coil]` complex128
    frames: int = 1  # echoes, cardiac phases, repetitions and sets of each slice
    crop: tuple[int, int] | None = None  # `(h, w)` of the image that is kept, centered; all if None
    # `[4, 4]` from voxel indices `(x, y, slice)` of the images `[slice, y, x]`, after the crop, to
    # mm toward right, anterior and superior
    affine: np.ndarray | None = None
    spacing: tuple[float, float, float] | None = None  # of `(x, y, slice)` in mm
    axes: np.ndarray | None = None  # of the volume as it is stored, see `volumes.read_oriented`
    facts: dict[str, str] = {}  # noqa: RUF012  what else the file tells, as its contrast, by name
    missing: tuple[str, ...] = ()  # names of what the format could hold and the file does not
    doubts: tuple[str, ...] = ()  # what the user should know of how it was read, in a line each
    simulated: bool = False  # fully sampled k-space made of an image, still to be measured

    @property
    def placed(self) -> bool:
        """Whether the file tells where the image lies; otherwise an affine is a guess."""
        return self.affine is not None and "affine" not in self.missing


def as_slices(field: str, shape: tuple[int, ...]) -> Shape:
    """The shape of an array of two to four axes, none empty and no slice larger than possible."""
    slices, coils, ky, kx = (1, 1, 1, 1, *shape)[-4:]
    if not 2 <= len(shape) <= 4 or min(shape) < 1 or 8 * coils * ky * kx > LARGEST_SLICE:
        raise InputError(f"{field} has shape {shape}, expected [ky, kx], [coil, ky, kx] or [slice, "
                         "coil, ky, kx] without a zero, and slices of at most "
                         f"{LARGEST_SLICE // 2**30} GiB; reshape it")
    return slices, coils, ky, kx


def maps_for(scan: Shape, shape: Shape, read: Reader) -> Reader:
    """`read`, of maps of the shape `(slices or 1, coils, y, x)`, for all slices of a scan."""
    if shape[1:] != scan[1:] or shape[0] not in (1, scan[0]):
        raise InputError(f"the coil maps have shape {shape}, expected {(1, *scan[1:])} or {scan}: "
                         "a map per coil and pixel of k-space, for all slices or each; take the "
                         "maps of this scan")
    return read if shape[0] == scan[0] else lambda indices: read([0] * len(list(indices)))


def guarded(file: Path, read: Reader) -> Reader:
    """`read`, behind the door of all readers."""
    def inside(indices: Iterable[int]) -> Iterator[np.ndarray]:
        with reading(file):
            yield from read(indices)

    return inside


def find_mask(kspace: np.ndarray) -> np.ndarray:
    """Where a slice was sampled: where any coil is not zero, `[ky or 1, kx]` float32.

    Of k-space `[coil, ky, kx]`. A few zeros among samples, as integers have them, do not count:
    where nine in ten of the points are there that the rows and columns with any sample have in
    common, those are the mask.
    """
    points = (kspace != 0).any(axis=0)
    rows, columns = points.any(axis=1), points.any(axis=0)
    grid = rows[:, None] & columns
    if points.sum() >= 0.9 * grid.sum():
        points = columns[None] if rows.all() else grid
    return points.astype(np.float32)


def slice_with_signal(scan: Scan) -> tuple[int, np.ndarray]:
    """The slice nearest the middle that is not all zero, after its index; InputError if none is."""
    with reading(scan.file):
        return first_signal(scan.shape[0], lambda index: next(scan.read([index])))
