"""Files of the fastMRI format: checked once and kept in an index, then read slice by slice.

A file is open only while a call reads from it. Its header, mask and attributes are read only when
it is indexed, so memory does not grow with the number of slices read.
"""

import json
import operator
import warnings
from collections.abc import Collection, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from tqdm import tqdm

from flatjax.data.io.checks import binary_mask, check_mask, finite, first_signal, reading
from flatjax.data.io.hdf5 import isolated, stored_dataset
from flatjax.data.io.header import Header, read_header
from flatjax.errors import InputError
from flatjax.files import make_folder, write_json
from flatjax.mri.sampling import calibration_size, valid_columns

REFERENCES = ("reconstruction_esc", "reconstruction_rss")
ATTRIBUTES = ("acquisition", "patient_id", "acceleration")
INDEX_NAME = ".flatjax-{}.json"  # beside the folder: other loaders take every file inside it
_VERSION = 4  # of the index: counted up whenever a record or its checks change


class Record(NamedTuple):
    """What is known of a file without opening it."""

    name: str  # with its extension
    size: int  # in bytes, when it was read
    mtime_ns: int  # in nanoseconds, when it was read
    kspace: tuple[int, ...]  # (slice, ky, kx) for a single coil or (slice, coil, ky, kx)
    references: list[str]  # those of `REFERENCES` in it
    crop: tuple[int, int]  # size (h, w) of its target
    padding: tuple[int, int]  # (left, right), the acquired columns, within k-space
    spacing: tuple[float, float, float] | None  # of (x, y, slice) in mm
    mask: tuple[int, ...]  # its own, 0 or 1 per column and 0 in the padding; empty if it has none
    undersampled: bool  # whether its k-space is zero wherever that mask is
    center: int  # central columns without a gap, as of `mri.sampling.calibration_size`
    attributes: dict[str, str]  # those of `ATTRIBUTES` that it has

    def own_mask(self) -> np.ndarray | None:
        """The file's own sampling mask `[1, kx]` float32, if it has one."""
        return np.array([self.mask], np.float32) if self.mask else None


def read_record(file: Path, known: Record | None = None) -> Record:
    """What is known of a file, which is read unless it is that of an earlier record.

    What can be checked without reading every slice is.

    Raises:
        InputError: naming the file, the field, what is wrong with it and what to do.
    """
    with reading(file):
        stat = file.stat()
        if known and (known.size, known.mtime_ns) == (stat.st_size, stat.st_mtime_ns):
            return known
        return isolated(_read_record, file)


def _read_record(file: Path) -> Record:
    with h5py.File(file) as content:
        stat = file.stat()
        kspace = stored_dataset(content, "kspace")
        if kspace.ndim not in (3, 4) or 0 in kspace.shape or kspace.dtype.kind != "c":
            raise InputError(f"kspace is {kspace.dtype} of shape {kspace.shape}, expected complex "
                             "(slice, ky, kx) or (slice, coil, ky, kx); convert it")
        references = {name: _reference_size(content, name, kspace.shape[0])
                      for name in REFERENCES if name in content}
        header = read_header(content, "ismrmrd_header")
        recon = [header.number(f"encoding/reconSpace/matrixSize/{axis}") for axis in "xy"]
        field, size = next(iter(references.items()), ("reconSpace of ismrmrd_header", recon))
        width = kspace.shape[-1]
        padding = _padding(header, width)
        acquired = valid_columns(width, padding)
        mask = _mask(content, width)
        sampled = acquired if mask is None else acquired & mask
        _, one = first_signal(len(kspace), lambda index: finite("kspace", index, kspace[index]))
        measured = np.asarray(one.reshape(-1, width).any(axis=0))
        if mask is not None:
            check_mask(one.reshape(-1, *one.shape[-2:]), measured[None], sampled)
        left_out = acquired & ~sampled
        return Record(
            name=file.name, size=stat.st_size, mtime_ns=stat.st_mtime_ns, kspace=kspace.shape,
            references=list(references), crop=_crop(field, size, kspace.shape[-2:]),
            padding=padding, spacing=header.spacing(),
            mask=() if mask is None else tuple(sampled.astype(int).tolist()),
            undersampled=bool(left_out.any() and not measured[left_out].any()),
            center=int(calibration_size(sampled[None])[1]), attributes=_attributes(content))


def read_fastmri_slices(file: Path, record: Record, indices: Sequence[int], reference: str = ""
                        ) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Read some slices of a file, and nothing but them.

    Yields:
        `(kspace, reference)`: `[coil, ky, kx]` complex64, and the dataset named `reference`, `[h,
        w]` float32, or None where the file has none.

    Raises:
        InputError: the file has changed or cannot be read any more, or a slice is not finite.
    """
    with reading(file), h5py.File(file) as content:
        for index in indices:
            kspace, image = finite("kspace", index, content["kspace"][index]), None
            if reference in record.references:
                image = finite(reference, index, content[reference][index], np.float32)
            yield kspace if kspace.ndim == 3 else kspace[None], image


def _padding(header: Header, width: int) -> tuple[int, int]:
    """The acquired columns `left <= kx < right`, as fastMRI takes them from a header."""
    limits = "encoding/encodingLimits/kspace_encoding_step_1"
    left = header.number("encoding/encodedSpace/matrixSize/y") // 2
    left -= header.number(f"{limits}/center", least=0)
    right = left + header.number(f"{limits}/maximum", least=0) + 1
    if max(left, 0) >= min(right, width):
        raise InputError(f"by its header columns {left} to {right} were acquired, but kspace has "
                         f"{width}; it belongs to another file: download it again")
    return max(left, 0), min(right, width)


def _reference_size(content: h5py.File, name: str, slices: int) -> Sequence[int]:
    dataset = stored_dataset(content, name)
    if dataset.ndim != 3 or dataset.dtype.kind != "f" or dataset.shape[0] != slices \
            or 0 in dataset.shape:
        raise InputError(f"{name} is {dataset.dtype} of shape {dataset.shape}, expected real "
                         f"({slices}, h, w), as many slices as kspace; download it again")
    finite(name, slices // 2, dataset[slices // 2], np.float32)
    return dataset.shape[1:]


def _crop(field: str, size: Sequence[int], image: Sequence[int]) -> tuple[int, int]:
    """The size `(h, w)` of a target: its reference's, or the header's recon matrix.

    An image that is smaller along one axis is cropped square to its shorter side instead, as
    fastMRI does for some narrow brain scans (`data/transforms.py` and `pl_modules/
    varnet_module.py` there, "FLAIR 203").
    """
    (rows, columns), (height, width) = size, image
    if rows <= height and columns <= width:
        return rows, columns
    side = min(height, width)
    if (rows > height and columns > width) or side > min(rows, columns):
        raise InputError(f"{field} is {rows} x {columns}, expected a size that the image of "
                         f"{height} x {width} can be cropped to; download the file again")
    return side, side


def _mask(content: h5py.File, width: int) -> np.ndarray | None:
    """The file's own mask `[kx]` bool, if it has one."""
    if "mask" not in content:
        return None
    dataset = stored_dataset(content, "mask")
    if dataset.shape != (width,):
        raise InputError(f"mask has shape {dataset.shape}, expected {(width,)}: a number per "
                         "column of kspace; download it again")
    return binary_mask("mask", dataset[()])[0] > 0


def _attributes(content: h5py.File) -> dict[str, str]:
    found = {}
    for name in ATTRIBUTES:
        value = np.asarray(content.attrs.get(name, ()))
        if value.size == 1:
            one = value.item()
            found[name] = one.decode(errors="replace") if isinstance(one, bytes) else str(one)
    return found


def index_folder(folder: Path, cache: str = "",
                 names: Collection[str] = ()) -> tuple[list[Record], dict[str, str]]:
    """The records of a folder's `.h5` files, from the index where a file has not changed.

    Where the index cannot be written, a warning says so.

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
    wanted = [file for file in files if not names or file.name in names]
    records, errors = {}, {}
    try:
        for file in tqdm(wanted, desc=f"index {folder.name}", unit="file", delay=2):
            try:
                records[file.name] = read_record(file, known.get(file.name))
            except InputError as error:
                errors[file.name] = str(error)
    finally:  # what was read until an interruption is not read again
        there = {file.name for file in files} - {*errors}
        kept = {name: one for name, one in known.items() if name in there} | records
        if kept != known:
            _save_index(path, kept)
    return list(records.values()), errors


def _load_index(path: Path) -> dict[str, Record]:
    """The records of an index; none if it is missing, damaged or of another version."""
    try:
        saved = json.loads(path.read_text())
        entries = saved["files"] if saved["version"] == _VERSION else {}
        for entry in entries.values():
            for name in ("kspace", "crop", "padding", "mask"):
                entry[name] = tuple(map(operator.index, entry[name]))
            entry["spacing"] = entry["spacing"] and tuple(map(float, entry["spacing"]))
        return {name: Record(**entry) for name, entry in entries.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _save_index(path: Path, records: dict[str, Record]) -> None:
    try:
        write_json(path, {"version": _VERSION,
                          "files": {name: one._asdict() for name, one in records.items()}})
    except OSError as error:
        warnings.warn(f"the index of {len(records)} files cannot be kept as {path} "
                      f"({error.strerror}) and will be made anew each time; set data.cache to a "
                      "folder that you may write to", stacklevel=2)
