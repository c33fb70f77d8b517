"""Files of the fastMRI format: checked once and kept in an index, then read slice by slice.

A file is open only while a call reads from it. Its header and attributes are read only when it is
indexed, so memory does not grow with the number of slices read.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from flatjax.data.io import fastmri_header
from flatjax.data.io.checks import check_finite
from flatjax.data.io.hdf5 import check_stored, isolated, open_hdf5
from flatjax.errors import InputError
from flatjax.mri.sampling import valid_columns

REFERENCES = ("reconstruction_esc", "reconstruction_rss")
ATTRIBUTES = ("acquisition", "max", "norm", "patient_id", "acceleration", "num_low_frequency")


class Record(NamedTuple):
    """What is known of a file without opening it.

    Attributes:
        name: of the file, with its extension.
        size, mtime_ns: of the file when it was read, in bytes and nanoseconds.
        kspace: shape, `(slice, ky, kx)` for a single coil or `(slice, coil, ky, kx)`.
        references: shape `(slice, h, w)` of each of `REFERENCES` in the file.
        padding: `(left, right)`, the acquired columns, within k-space.
        recon: the header's recon matrix size `(x, y)`: rows and columns of the image.
        masked: whether the file has a sampling mask of its own.
        undersampled: whether its k-space is zero wherever that mask is.
        center: number of central columns, placed as by `mri.host.masks.center_mask`, without a gap.
        attributes: those of `ATTRIBUTES` that the file has.
    """

    name: str
    size: int
    mtime_ns: int
    kspace: tuple[int, ...]
    references: dict[str, tuple[int, ...]]
    padding: tuple[int, int]
    recon: tuple[int, int]
    masked: bool
    undersampled: bool
    center: int
    attributes: dict[str, str | int | float]


class Slice(NamedTuple):
    """One slice as it is stored.

    Attributes:
        kspace: `[coil, ky, kx]` complex64.
        reference: `[h, w]` float32, or None.
        mask: the file's own, `[1, kx]` float32 of 0 and 1, zero in the padding, or None.
    """

    kspace: np.ndarray
    reference: np.ndarray | None
    mask: np.ndarray | None


def read_record(file: Path) -> Record:
    """Read what is known of a file, and check what can be without reading every slice.

    Raises:
        InputError: naming the file, the field, what is wrong with it and what to do.
    """
    return isolated(_read_record, file)


def _read_record(file: Path) -> Record:
    with open_hdf5(file) as content:
        stat = file.stat()
        kspace = _dataset(file, content, "kspace")
        if kspace.ndim not in (3, 4) or 0 in kspace.shape or kspace.dtype.kind != "c":
            raise InputError(f"{file}: kspace is {kspace.dtype} of shape {kspace.shape}, expected "
                             "complex (slice, ky, kx) or (slice, coil, ky, kx); convert it")
        width = kspace.shape[-1]
        header = _header(file, content)
        padding = max(header.padding[0], 0), min(header.padding[1], width)
        if padding[0] >= padding[1]:
            raise InputError(f"{file}: by ismrmrd_header columns {header.padding[0]} to "
                             f"{header.padding[1]} were acquired, but kspace has {width}; the "
                             "header belongs to another file: download it again")
        references = {}
        for name in REFERENCES:
            if name in content:
                references[name] = _reference_shape(file, content, name, kspace.shape[0])
        mask = _mask(file, content, width, padding)
        sampled = valid_columns(width, padding) if mask is None else mask[0] > 0
        slices = _first_slice_with_signal(file, kspace)
        measured = np.asarray(slices.any(axis=tuple(range(slices.ndim - 1))))
        left_out = valid_columns(width, padding) & ~sampled
        return Record(
            name=file.name, size=stat.st_size, mtime_ns=stat.st_mtime_ns, kspace=kspace.shape,
            references=references, padding=padding, recon=header.recon, masked=mask is not None,
            undersampled=bool(left_out.any() and not measured[left_out].any()),
            center=_central_run(sampled), attributes=_attributes(content))


def read_fastmri_slices(file: Path, record: Record, indices: Sequence[int],
                        reference: str) -> Iterator[Slice]:
    """Read some slices, and nothing but them.

    Args:
        file: path of the file.
        record: of the file.
        indices: of the slices.
        reference: name of the dataset that holds the reference image.

    Raises:
        InputError: the file has changed or cannot be read any more, or a slice is not finite.
    """
    with open_hdf5(file) as content:
        mask = _mask(file, content, record.kspace[-1], record.padding) if record.masked else None
        for index in indices:
            kspace = np.asarray(content["kspace"][index], np.complex64)
            check_finite(file, "kspace", index, kspace)
            image = None
            if reference in record.references:
                image = np.asarray(content[reference][index], np.float32)
                check_finite(file, reference, index, image)
            yield Slice(kspace if kspace.ndim == 3 else kspace[None], image, mask)


def _dataset(file: Path, content: h5py.File, name: str) -> h5py.Dataset:
    found = content.get(name)
    if not isinstance(found, h5py.Dataset):
        raise InputError(f"{file}: has no dataset {name}, only "
                         f"{', '.join(sorted(content)[:8]) or 'nothing at all'}; expected a file "
                         "as fastMRI publishes them")
    check_stored(file, found)
    return found


def _header(file: Path, content: h5py.File) -> fastmri_header.Header:
    dataset = _dataset(file, content, "ismrmrd_header")
    if dataset.size != 1 or not h5py.check_string_dtype(dataset.dtype):
        raise InputError(f"{file}: ismrmrd_header is {dataset.dtype} of shape {dataset.shape}, "
                         "expected one string of XML; download it again")
    xml = np.asarray(dataset[()]).item()
    try:
        return fastmri_header.parse(xml.encode() if isinstance(xml, str) else bytes(xml))
    except InputError as error:
        raise InputError(f"{file}: {error}") from error


def _reference_shape(file: Path, content: h5py.File, name: str, slices: int) -> tuple[int, ...]:
    dataset = _dataset(file, content, name)
    if dataset.ndim != 3 or dataset.dtype.kind != "f" or dataset.shape[0] != slices \
            or 0 in dataset.shape:
        raise InputError(f"{file}: {name} is {dataset.dtype} of shape {dataset.shape}, expected "
                         f"real ({slices}, h, w), as many slices as kspace; download it again")
    check_finite(file, name, slices // 2, dataset[slices // 2])
    return dataset.shape


def _mask(file: Path, content: h5py.File, width: int,
          padding: tuple[int, int]) -> np.ndarray | None:
    if "mask" not in content:
        return None
    dataset = _dataset(file, content, "mask")
    if dataset.shape != (width,) or dataset.dtype.kind not in "biuf":
        raise InputError(f"{file}: mask is {dataset.dtype} of shape {dataset.shape}, expected "
                         f"{width} numbers, one per column of kspace; download it again")
    mask = dataset[()].astype(np.float32)
    if not np.isin(mask, (0, 1)).all() or not mask.any():
        raise InputError(f"{file}: mask has values from {mask.min():g} to {mask.max():g}, "
                         "expected 0 and 1, and 1 somewhere; download it again")
    return (mask * valid_columns(width, padding))[None]


def _first_slice_with_signal(file: Path, kspace: h5py.Dataset) -> np.ndarray:
    """The slice nearest the middle that is not all zero: empty ones at the ends are accepted."""
    count = kspace.shape[0]
    for index in sorted(range(count), key=lambda i: abs(i - count // 2)):
        one = kspace[index]
        check_finite(file, "kspace", index, one)
        if one.any():
            return one
    raise InputError(f"{file}: kspace is zero in every slice, expected measured data; download it "
                     "again")


def _central_run(sampled: np.ndarray) -> int:
    width, run = len(sampled), 0
    while run < width:
        start = (width - run) // 2
        if not sampled[start:start + run + 1].all():
            break
        run += 1
    return run


def _attributes(content: h5py.File) -> dict[str, str | int | float]:
    found = {}
    for name in ATTRIBUTES:
        if name not in content.attrs:
            continue
        dtype = content.attrs.get_id(name).dtype
        # HDF5 crashes on other objects where a file is damaged
        if dtype.kind in "biuf" or h5py.check_string_dtype(dtype):
            value = np.asarray(content.attrs[name])
            value = value.item() if value.size == 1 else None
            value = value.decode(errors="replace") if isinstance(value, bytes) else value
            if isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value)):
                found[name] = value
    return found


def crop_shape(record: Record, reference: str) -> tuple[int, int]:
    """The size `(h, w)` of a file's target: its reference's, or the header's recon matrix.

    An image that is smaller along one axis is cropped square to its shorter side instead, as
    fastMRI does for some narrow brain scans (`data/transforms.py` and `pl_modules/
    varnet_module.py` there, "FLAIR 203").

    Raises:
        InputError: naming the field; the message does not name the file.
    """
    height, width = record.kspace[-2:]
    rows, columns = record.references.get(reference, record.recon)[-2:]
    if rows <= height and columns <= width:
        return rows, columns
    side = min(height, width)
    if (rows > height and columns > width) or side > min(rows, columns):
        field = reference if reference in record.references else "reconSpace of ismrmrd_header"
        raise InputError(f"{field} is {rows} x {columns}, expected a size that the image of "
                         f"{height} x {width} can be cropped to; download the file again")
    return side, side
