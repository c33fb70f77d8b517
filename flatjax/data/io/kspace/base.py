"""What every reader of k-space gives: a `Scan`, whose slices are read when they are needed."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from flatjax.data.io.checks import check_finite
from flatjax.errors import InputError

# `indices -> iterator` over those slices; rising indices are read in one go.
Reader = Callable[[Iterable[int]], Iterator[np.ndarray]]
LARGEST_SLICE = 2**32  # bytes: what no scanner's slice has, but a damaged header may declare


class Scan(NamedTuple):
    """The k-space of a file, or of a volume that it is simulated from.

    Attributes:
        file: path.
        name: for the files made of it: the file's without its suffix.
        form: name of the format.
        shape: `(slices, coils, ky, kx)`.
        read: `Reader` of k-space, each slice `[coil, ky, kx]` complex64 and finite.
        mask: the sampling mask stored with it, `[ky or 1, kx]` float32 of 0 and 1; None without.
        maps: `Reader` of the coil sensitivities stored with it, each slice's `[coil, y, x]`
            complex64; None without.
        crop: `(h, w)` of the image that the scanner keeps, centered; None for all of it.
        affine: `[4, 4]` from voxel indices `(x, y, slice)` of the images `[slice, y, x]`, after
            the crop, to mm toward right, anterior and superior; None where not known.
        spacing: of `(x, y, slice)` in mm; None where not known.
        facts: what else the file tells, as its contrast or acquisition, by name.
        missing: names of what the format could hold and the file does not.
        simulated: whether it is fully sampled k-space made of an image, still to be measured.
    """

    file: Path
    name: str
    form: str
    shape: tuple[int, int, int, int]
    read: Reader
    mask: np.ndarray | None = None
    maps: Reader | None = None
    crop: tuple[int, int] | None = None
    affine: np.ndarray | None = None
    spacing: tuple[float, float, float] | None = None
    facts: dict[str, str] = {}  # noqa: RUF012
    missing: tuple[str, ...] = ()
    simulated: bool = False


def as_slices(file: Path, field: str, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """The shape `(slices, coils, ky, kx)` of an array of two to four axes.

    Raises:
        InputError: of another rank, with an empty axis, or slices larger than any scanner's.
    """
    if not 2 <= len(shape) <= 4 or 0 in shape:
        raise InputError(f"{file}: {field} has shape {shape}, expected [ky, kx], [coil, ky, kx] or "
                         "[slice, coil, ky, kx] without a zero; reshape it")
    slices, coils, ky, kx = (1,) * (4 - len(shape)) + tuple(shape)
    if 8 * coils * ky * kx > LARGEST_SLICE:
        raise InputError(f"{file}: {field} has shape {shape}, slices of more than "
                         f"{LARGEST_SLICE // 2**30} GiB; expected [ky, kx], [coil, ky, kx] or "
                         "[slice, coil, ky, kx]; reshape it")
    return slices, coils, ky, kx


def to_complex64(file: Path, field: str, index: int, values: np.ndarray) -> np.ndarray:
    """One slice as complex64.

    Raises:
        InputError: NaN, infinite, or beyond the range of complex64.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        out = np.ascontiguousarray(values, np.complex64)
    check_finite(file, field, index, out)
    return out


def binary_mask(file: Path, field: str, values: np.ndarray) -> np.ndarray:
    """A sampling mask `[kx]` or `[ky, kx]` as `[ky or 1, kx]` float32.

    Raises:
        InputError: of another rank or type, with other values than 0 and 1, or without a 1.
    """
    if values.ndim not in (1, 2) or values.dtype.kind not in "biuf" or 0 in values.shape:
        raise InputError(f"{file}: {field} is {values.dtype} of shape {values.shape}, expected "
                         "real numbers, [kx] or [ky, kx]; save it so")
    mask = np.atleast_2d(values).astype(np.float32)
    if not np.isin(mask, (0, 1)).all() or not mask.any():
        raise InputError(f"{file}: {field} has values from {mask.min():g} to {mask.max():g}, "
                         "expected 0 and 1, and 1 somewhere; threshold it")
    return mask


def check_mask(file: Path, field: str, mask: np.ndarray, shape: tuple[int, int]) -> None:
    """Refuse a mask `[ky or 1, kx]` of another size than k-space `(ky, kx)`.

    Raises:
        InputError: naming both.
    """
    if mask.shape not in ((1, shape[1]), shape):
        raise InputError(f"{file}: {field} has shape {mask.shape}, expected {(1, shape[1])} or "
                         f"{shape}, the size of k-space; take the mask of this scan")


def maps_for(scan: tuple[int, int, int, int], file: Path, field: str, shape: tuple[int, ...],
             read: Reader) -> Reader:
    """A `Reader` of coil maps for k-space of the shape `scan`, where one set may do for all slices.

    Args:
        scan: `(slices, coils, ky, kx)`.
        file, field: what the maps are read from, for messages.
        shape: of the maps, `(slices or 1, coils, y, x)`.
        read: of the maps.

    Raises:
        InputError: naming both.
    """
    if shape[1:] != scan[1:] or shape[0] not in (1, scan[0]):
        raise InputError(f"{file}: {field} has shape {shape}, expected {(1, *scan[1:])} or {scan}:"
                         " a map per coil and pixel of k-space, for all slices or each; take the "
                         "maps of this scan")
    return read if shape[0] == scan[0] else lambda indices: read([0] * len(list(indices)))


def find_mask(kspace: np.ndarray) -> np.ndarray:
    """Where a slice was sampled: where any coil is not zero, `[ky or 1, kx]` float32.

    A few zeros among samples, as integers have them, do not count: where nine in ten of the points
    are there that the rows and columns with any sample have in common, those are the mask.

    Args:
        kspace: `[coil, ky, kx]` complex.
    """
    points = (kspace != 0).any(axis=0)
    rows, columns = points.any(axis=1), points.any(axis=0)
    grid = rows[:, None] & columns
    if points.sum() >= 0.9 * grid.sum():
        points = columns[None] if rows.all() else grid
    return points.astype(np.float32)


def slice_with_signal(scan: Scan) -> tuple[int, np.ndarray]:
    """The slice nearest the middle that is not all zero, and its index.

    Raises:
        InputError: there is none, or its largest sample lies in a corner, where k-space has the
            zero frequency before it is shifted to the center.
    """
    count = scan.shape[0]
    for index in sorted(range(count), key=lambda i: abs(i - count // 2)):
        kspace, = scan.read([index])
        if kspace.any():
            break
    else:
        raise InputError(f"{scan.file}: k-space is zero in every slice, expected measured data; "
                         "export it again")
    power = np.sum(np.real(kspace) ** 2 + np.imag(kspace) ** 2, axis=0)
    peak = np.unravel_index(power.argmax(), power.shape)
    if all(min(at, n - at) <= n // 16 for at, n in zip(peak, power.shape, strict=True)):
        raise InputError(f"{scan.file}: the largest sample of k-space lies in a corner, at "
                         f"{tuple(map(int, peak))}, expected near the center of "
                         f"{power.shape}; move it there with numpy.fft.fftshift over the last two "
                         "axes")
    return index, kspace
