"""The index of a folder of fastMRI's files: each is checked once, and again when it changes."""

import json
import operator
import warnings
from collections.abc import Collection, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from tqdm import tqdm

from flatjax.data.io.fastmri_files import Record, read_record
from flatjax.errors import InputError
from flatjax.files import make_folder, write_json

INDEX_NAME = ".flatjax-{}.json"  # beside the folder: other loaders take every file inside it
_VERSION = 2  # of the index: counted up whenever a record or its checks change


def index_folder(folder: Path, cache: str = "",
                 names: Collection[str] = ()) -> tuple[list[Record], dict[str, str]]:
    """The records of a folder's `.h5` files, from the index where a file has not changed.

    Where the index cannot be written, a warning says so. Of a new file, header, attributes, mask
    and middle slice are read.

    Args:
        folder: holding the files.
        cache: folder for the index, "" for the one above the data's.
        names: of the files wanted; all where empty.

    Returns:
        `(records, errors)`: records by name; what is wrong with the other files, by name.

    Raises:
        InputError: the folder cannot be read or has no such files, or `cache` cannot be written.
    """
    files = sorted(folder.glob("[!.]*.h5"))
    if not files:
        raise InputError(f"{folder}: holds no .h5 files or cannot be read; unpack fastMRI's "
                         "archive there, or name another folder")
    path = folder.parent / INDEX_NAME.format(folder.name)
    if cache:
        key = sha256(bytes(folder.resolve())).hexdigest()[:12]
        path = make_folder(Path(cache).expanduser()) / f"fastmri-{key}.json"
    known = _load_index(path)
    kept = {file.name: known[file.name] for file in files if file.name in known}
    wanted = [file for file in files if not names or file.name in names]
    records, errors = {}, {}
    try:
        for file in tqdm(wanted, desc=f"index {folder.name}", unit="file", delay=2):
            try:
                record = kept.pop(file.name, None)
                if not record or _version(file) != (record.size, record.mtime_ns):
                    record = read_record(file)
                records[file.name] = record
            except InputError as error:
                errors[file.name] = str(error)
    finally:  # what was read until an interruption is not read again
        if kept | records != known:
            _save_index(path, kept | records)
    return list(records.values()), errors


def _version(file: Path) -> tuple[int, int] | None:
    return (file.stat().st_size, file.stat().st_mtime_ns) if file.exists() else None


def _load_index(path: Path) -> dict[str, Record]:
    """The records of an index; none if it is missing, damaged or of another version."""
    try:
        saved = json.loads(path.read_text())
        known = saved["files"] if saved["version"] == _VERSION else {}
        return {name: _from_json(entry) for name, entry in known.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _from_json(entry: dict[str, Any]) -> Record:
    fields = dict(entry)
    for name in ("kspace", "padding", "recon"):
        fields[name] = _ints(entry[name])
    fields["references"] = {name: _ints(shape) for name, shape in entry["references"].items()}
    fields["spacing"] = entry["spacing"] and tuple(map(float, entry["spacing"]))
    return Record(**fields)


def _ints(values: Sequence[int]) -> tuple[int, ...]:
    return tuple(operator.index(value) for value in values)


def _save_index(path: Path, records: dict[str, Record]) -> None:
    try:
        write_json(path, {"version": _VERSION,
                          "files": {name: one._asdict() for name, one in records.items()}})
    except OSError as error:
        warnings.warn(f"the index of {len(records)} files cannot be kept as {path} "
                      f"({error.strerror}) and will be made anew each time; set data.cache to a "
                      "folder that you may write to", stacklevel=2)
