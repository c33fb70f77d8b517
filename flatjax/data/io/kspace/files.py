"""From a path to a `Scan`: which reader a file takes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from flatjax.data.io.hdf5 import open_hdf5
from flatjax.data.io.kspace import arrays, bart
from flatjax.data.io.kspace.base import Reader, Scan
from flatjax.data.io.kspace.fastmri import open_fastmri
from flatjax.data.io.kspace.ismrmrd import open_ismrmrd
from flatjax.data.io.kspace.volumes import open_volume
from flatjax.data.io.volumes import READERS, format_of
from flatjax.errors import InputError

HDF5 = (".h5", ".hdf5", ".mrd")
FORMATS = (".npy", ".npz", ".cfl", *HDF5)


def find_scans(paths: Sequence[str | Path]) -> list[Path]:
    """The files that paths name: themselves, or by name those of a folder that a reader takes.

    Raises:
        InputError: a path that does not exist, or a folder without such files.
    """
    files = []
    for path in map(Path, paths):
        path = path.expanduser()
        if not path.is_dir():
            if not path.exists():
                raise InputError(f"{path}: no such file or folder; check the path")
            files.append(path)
            continue
        try:
            inside = sorted(one for one in path.iterdir() if not one.name.startswith(".")
                            and (one.name.endswith(FORMATS) or format_of(one.name)))
        except OSError as error:
            raise InputError(f"{path}: cannot be read as a folder ({error.strerror}); check its "
                             "permissions") from error
        if not inside:
            raise InputError(f"{path}: holds no file named {', '.join((*FORMATS, *READERS))}; name "
                             "another folder or a file")
        files += inside
    return files


def open_scan(file: str | Path, coils: int = 1) -> Scan:
    """Look into a file by its name, and for HDF5 by what is inside.

    Of k-space nothing but headers, masks and, for fastMRI, one slice is read; see
    `slice_with_signal`.

    Args:
        file: of k-space, or a magnitude volume in a format of `io.volumes.READERS`.
        coils: that are simulated for a volume.

    Raises:
        InputError: a file that is missing, damaged, or of no known format, by name.
    """
    file = Path(file)
    if file.suffix == ".npy":
        return arrays.open_npy(file)
    if file.suffix == ".npz":
        return arrays.open_npz(file)
    if file.suffix in (".cfl", ".hdr"):
        return bart.open_cfl(file)
    if file.suffix in HDF5:
        with open_hdf5(file) as content:
            names = sorted(map(str, content))  # those that are not Unicode are bytes
        if "kspace" in names:
            return open_fastmri(file)
        if "dataset" in names:
            return open_ismrmrd(file)
        raise InputError(f"{file}: has neither a dataset kspace, as fastMRI's files, nor a group "
                         f"dataset, as ISMRMRD's, only {', '.join(names[:8]) or 'nothing at all'}; "
                         "convert it")
    if format_of(file.name):
        return open_volume(file, coils)
    raise InputError(f"{file}: unknown format {file.suffix!r}, expected {', '.join(FORMATS)} or a "
                     f"volume as {', '.join(READERS)}; convert it")


def open_maps(file: str | Path) -> tuple[tuple[int, int, int, int], Reader]:
    """Coil maps of a `.npy`, `.npz` (array `maps`) or BART's `.cfl`.

    Returns:
        `(shape, reader)`: `(slices or 1, coils, y, x)`, and a `Reader` of `[coil, y, x]` complex64.

    Raises:
        InputError: a file that is missing, damaged, or no such maps, by name.
    """
    file = Path(file)
    if file.suffix in (".cfl", ".hdr"):
        return bart.open_maps(file)
    if file.suffix in (".npy", ".npz"):
        return arrays.open_maps(file)
    raise InputError(f"{file}: expected coil maps as .npy, .npz or .cfl; convert them")


def open_mask(file: str | Path) -> np.ndarray:
    """A sampling mask `[kx]` or `[ky, kx]` of a `.npy`, or the `mask` of a `.npz`.

    Returns:
        `[ky or 1, kx]` float32 of 0 and 1.

    Raises:
        InputError: a file that is missing, damaged, or no mask, by name.
    """
    return arrays.open_mask(Path(file))
