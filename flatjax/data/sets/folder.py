"""A folder of volumes as a data set: one subject per file or sub-folder, split by subject."""

import os
from collections.abc import Sequence
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

from flatjax.data.base import DataSet
from flatjax.data.io.volumes import READERS, Raw, format_of, read_magnitude, stem
from flatjax.data.subjects import SubjectVolume, make_dataset, unique_names
from flatjax.errors import InputError


def make(*, path: str = "", pattern: str = "*", matrix: int = 0, coils: int = 1,
         orientation: str = "axial", split: bool = True, split_seed: int = 0,
         validation: Sequence[str] = (), test: Sequence[str] = (), validation_share: float = 0.1,
         test_share: float = 0.2, raw_shape: Sequence[int] = (), raw_dtype: str = "",
         raw_order: str = "zyx", raw_spacing: Sequence[float] = (), cache: str = "",
         skip_bad: bool = False) -> DataSet:
    """The data set of all magnitude volumes in a folder, each scaled to maximum 1.

    A file in the folder is a subject of its name without extension, and so is each sub-folder
    with all volumes below it. Slices, phases and coils are as the data set `volume` makes them.

    Args:
        path: of the folder, with files in formats of `io.volumes.READERS`: NIfTI, NRRD, MINC or raw
            voxels. Hidden files and folders are left out.
        pattern: which files, by shell wildcards on their path within the folder, as "*T1w*".
        matrix: pixels along each side of a square field of view as wide as the longer side of a
            slice; 0 for the files' own grids.
        coils: simulated birdcage coils.
        orientation: one of `slices.ORIENTATIONS`.
        split: whether subjects are split; otherwise all are tested and `draw` raises.
        split_seed: of the split.
        validation, test: subjects with that role; drawn by the shares if empty.
        validation_share, test_share: of the subjects, at least one each.
        raw_shape, raw_dtype, raw_order, raw_spacing: of voxels without a header, the fields of
            `io.volumes.Raw`; what is left out is taken from each file's name.
        cache: folder for prepared slices, "" for `.flatjax-NAME` beside the folder.
        skip_bad: leave bad files out, with a warning, instead of refusing the folder.

    Returns:
        a `DataSet` whose volumes are named after their files.

    Raises:
        InputError: an option out of range; a folder that is missing or holds no such file; a
            file that cannot be read, is damaged or no such volume; too few subjects.
    """
    if not path:
        raise InputError("the data set folder has no path: set data.path to a folder of volumes")
    folder = Path(path).expanduser()
    files = find_volumes(folder, pattern)
    raw = Raw(raw_shape, raw_dtype, raw_order, raw_spacing)
    subjects = [stem(file.name) if file.parent == folder else file.relative_to(folder).parts[0]
                for file in files]
    alone = {subject for subject in subjects if subjects.count(subject) == 1}
    names = unique_names([
        subject if subject in alone else "_".join(
            [*file.relative_to(folder).parts[:-1], stem(file.name)])
        for subject, file in zip(subjects, files, strict=True)])
    scans = [SubjectVolume(subject, name, _parts(file), repr(raw),
                           partial(read_magnitude, file, raw))
             for subject, name, file in zip(subjects, names, files, strict=True)]
    return make_dataset(
        "folder", folder, scans, matrix=matrix, coils=coils, orientation=orientation, split=split,
        split_seed=split_seed, validation=validation, test=test,
        validation_share=validation_share, test_share=test_share, cache=cache, skip_bad=skip_bad)


def _parts(file: Path) -> list[Path]:
    """A volume's files: with a `.nhdr` header also those of its name beside it, its voxels."""
    if format_of(file.name) != ".nhdr":
        return [file]
    return [file, *sorted(one for one in file.parent.iterdir()
                          if one != file and one.name.startswith(f"{stem(file.name)}."))]


def find_volumes(folder: Path, pattern: str = "*") -> list[Path]:
    """The volumes below a folder whose path within it matches, sorted; see `volumes_below`.

    Raises:
        InputError: the folder is missing, cannot be read or holds none.
    """
    files = volumes_below(folder)
    chosen = sorted(file for file in files if fnmatch(str(file.relative_to(folder)), pattern))
    if not chosen:
        what = f"none of its {len(files)} volumes matches {pattern!r}" if files else (
            f"holds no volume, expected files named {', '.join(READERS)}, or one of these and .gz")
        raise InputError(f"{folder}: {what}; set data.path or data.pattern")
    return chosen


def volumes_below(folder: Path) -> list[Path]:
    """The volumes below a folder; hidden ones and the voxels of `.nhdr` files left out.

    Raises:
        InputError: the folder is missing or cannot be read.
    """
    def refuse(error: OSError) -> None:
        kind = "no such folder" if isinstance(error, FileNotFoundError) else (
            "is a file, expected a folder" if isinstance(error, NotADirectoryError)
            else f"cannot be read ({error.strerror})")
        raise InputError(f"{error.filename}: {kind}; set data.path to a folder of volumes that "
                         "you may read") from error

    files, seen = [], set()
    for root, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        if (real := os.path.realpath(root)) in seen:
            folders.clear()  # a link to where we have been
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        headers = {stem(name) for name in names if format_of(name) == ".nhdr"}
        files += [Path(root, name) for name in names if format_of(name)
                  and not name.startswith(".")
                  and not (stem(name) in headers and format_of(name).startswith(".raw"))]
    return files
