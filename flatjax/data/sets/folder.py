"""A folder of volumes as a data set: one subject per file or sub-folder, split by subject."""

import os
from collections.abc import Sequence
from fnmatch import fnmatch
from functools import partial
from glob import escape
from pathlib import Path

from flatjax.data.io.volumes import READERS, Raw, format_of, read_magnitude, stem
from flatjax.data.subjects import SubjectVolume, subject_dataset
from flatjax.errors import InputError


def find(folder: Path, *, pattern: str = "*", raw_shape: Sequence[int] = (), raw_dtype: str = "",
         raw_order: str = "zyx", raw_spacing: Sequence[float] = ()) -> list[SubjectVolume]:
    """All magnitude volumes in a folder, each scaled to maximum 1 and named after its file.

    A file in the folder is a subject of its name without extension, and so is each sub-folder
    with all volumes below it.

    Args:
        folder: see `find_volumes`, as `pattern`.
        pattern: which files, as "*T1w*".
        raw_shape, raw_dtype, raw_order, raw_spacing: of voxels without a header, the fields of
            `io.volumes.Raw`; what is left out is taken from each file's name.
    """
    raw = Raw(raw_shape, raw_dtype, raw_order, raw_spacing)
    paths = [file.relative_to(folder) for file in find_volumes(folder, pattern)]
    subjects = [stem(path.parts[0]) if len(path.parts) == 1 else path.parts[0] for path in paths]
    volumes = []
    for path, subject in zip(paths, subjects, strict=True):
        alone = subjects.count(subject) == 1
        name = subject if alone else "_".join([*path.parts[:-1], stem(path.name)])
        file = folder / path
        parts = [file]
        if format_of(file.name) == ".nhdr":  # its voxels are in one of those of its name
            parts += sorted({*file.parent.glob(f"{escape(stem(file.name))}.*")} - {file})
        volumes.append(SubjectVolume(subject, name, parts, repr(raw),
                                     partial(read_magnitude, file, raw)))
    return volumes


make = subject_dataset(find)


def find_volumes(folder: Path, pattern: str = "*") -> list[Path]:
    """The volumes below a folder in formats of `io.volumes.READERS`, sorted.

    Those whose path within it matches a pattern of shell wildcards, but no hidden ones, nor the
    voxels of `.nhdr` files. InputError if the folder is missing, cannot be read or holds none.
    """
    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename}: cannot be read as a folder ({error.strerror}); set "
                         "data.path to a folder of volumes") from error

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
    chosen = sorted(file for file in files if fnmatch(str(file.relative_to(folder)), pattern))
    if not chosen:
        what = f"none of its {len(files)} volumes matches {pattern!r}" if files else (
            f"holds no volume, expected files named {', '.join(READERS)}, or one of these and .gz")
        raise InputError(f"{folder}: {what}; set data.path or data.pattern")
    return chosen
