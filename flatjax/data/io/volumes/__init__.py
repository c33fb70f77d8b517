"""Volumes of any format, one reader each: `[x, y, z]` float32 toward right, anterior, superior.

NIfTI, NRRD, MINC 1 and 2, and raw voxels, each also compressed by gzip. No memory is taken for
sizes that a file declares and does not hold, and nothing in a file is executed.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from flatjax.data.io.checks import reading
from flatjax.data.io.volumes.by_nibabel import read_minc, read_nifti
from flatjax.data.io.volumes.common import Spacing, Stored, to_ras, voxel_sizes
from flatjax.data.io.volumes.nrrd import read_nrrd
from flatjax.data.io.volumes.raw import Raw, read_raw
from flatjax.errors import InputError

READERS: dict[str, Callable[[Path], Stored]] = {
    ".nii": read_nifti, ".nrrd": read_nrrd, ".nhdr": read_nrrd, ".mnc": read_minc,
    ".rawb": read_raw, ".raws": read_raw, ".raw": read_raw,
}
NEGATIVE_SHARE = 0.01  # of the maximum: what interpolation may have left below zero

__all__ = ["READERS", "Raw", "as_magnitude", "format_of", "read_magnitude",
           "read_oriented", "read_volume", "stem"]


def format_of(name: str) -> str:
    """The key of `READERS` that a file name ends with, "" for none; case and `.gz` aside."""
    suffix = Path(name.lower().removesuffix(".gz")).suffix
    return suffix if suffix in READERS else ""


def stem(name: str) -> str:
    """A file name without the extensions of its format."""
    shorter = name[:-3] if name.lower().endswith(".gz") else name
    return shorter[:-len(format_of(name))] if format_of(name) else shorter


def read_oriented(file: str | Path, raw: Raw | None = None
                  ) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
    """Read a volume of real numbers and where it lies.

    `raw` says how the voxels of a file without a header lie; by default its name does.

    Returns:
        `(volume, affine, axes, told)`: `[x, y, z]` float32, axes toward right, anterior and
        superior, to the nearest, `[4, 4]` float64 from its indices to mm in these directions, how
        the file's own axes lie, as `nibabel.io_orientation` has it, and whether it tells that. One
        that does not is taken to be stored that way, its first voxel at 0.

    Raises:
        InputError: naming the file and what is wrong: missing, not readable, damaged or cut
            short, of another format, rank or type, or with voxels that are not finite.
    """
    file = Path(file).expanduser()
    reader = READERS.get(format_of(file.name))
    if reader is None:
        raise InputError(f"{file}: expected a name that ends with {', '.join(READERS)}, or one of "
                         "these and .gz; convert other formats, for instance with nibabel or "
                         "dcm2niix")
    with reading(file):
        voxels, affine, told = read_raw(file, raw) if reader is read_raw else reader(file)
        volume, placed, axes = to_ras(voxels, affine)
        bad = volume.size - np.count_nonzero(np.isfinite(volume))
        if bad:
            raise InputError(f"{bad} voxels are NaN or infinite, expected finite numbers; replace "
                             "them, with 0 for instance")
    return volume, placed, axes, told


def read_volume(file: str | Path, raw: Raw | None = None) -> tuple[np.ndarray, Spacing]:
    """The volume of `read_oriented`, with the size of its voxels in mm."""
    volume, affine, *_ = read_oriented(file, raw)
    return volume, voxel_sizes(affine)


def read_magnitude(file: str | Path, raw: Raw | None = None) -> tuple[np.ndarray, Spacing]:
    """As `read_volume`, of a magnitude image, scaled as `as_magnitude` does."""
    volume, spacing = read_volume(file, raw)
    return as_magnitude(file, volume), spacing


def as_magnitude(file: str | Path, volume: np.ndarray) -> np.ndarray:
    """The voxels of a file in [0, 1], with maximum 1, those a little below zero become 0.

    InputError if they are all one, or negative: a magnitude is not, and taking absolute values
    would be a guess.
    """
    low, high = float(volume.min()), float(volume.max())
    if low == high:
        raise InputError(f"{file}: every voxel is {high:g}, expected an image")
    if low < -NEGATIVE_SHARE * high:
        raise InputError(f"{file}: values from {low:g} to {high:g}, expected a magnitude image "
                         "without negative values; shift or clip it first")
    return np.clip(volume / np.float32(high), 0, 1)
