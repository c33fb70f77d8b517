"""Files of the fastMRI format: checked once and kept in an index, then read slice by slice.

A file is open only while a call reads from it. Its header and attributes are read only when it is
indexed, so memory does not grow with the number of slices read.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from flatjax.data.io.checks import binary_mask, finite, first_signal, reading
from flatjax.data.io.hdf5 import isolated, stored_dataset
from flatjax.data.io.header import Header, read_header
from flatjax.errors import InputError
from flatjax.mri.sampling import valid_columns

REFERENCES = ("reconstruction_esc", "reconstruction_rss")
ATTRIBUTES = ("acquisition", "patient_id", "acceleration")


class Record(NamedTuple):
    """What is known of a file without opening it."""

    name: str  # with its extension
    size: int  # in bytes, when it was read
    mtime_ns: int  # in nanoseconds, when it was read
    kspace: tuple[int, ...]  # (slice, ky, kx) for a single coil or (slice, coil, ky, kx)
    references: dict[str, tuple[int, ...]]  # shape (slice, h, w) of each of `REFERENCES` in it
    padding: tuple[int, int]  # (left, right), the acquired columns, within k-space
    recon: tuple[int, int]  # the header's recon matrix (x, y): rows and columns of the image
    spacing: tuple[float, float, float] | None  # of (x, y, slice) in mm
    masked: bool  # whether it has a sampling mask of its own
    undersampled: bool  # whether its k-space is zero wherever that mask is
    center: int  # central columns, as `mri.host.masks.center_mask` places them, without a gap
    attributes: dict[str, str]  # those of `ATTRIBUTES` that it has


class Slice(NamedTuple):
    """One slice as it is stored."""

    kspace: np.ndarray  # [coil, ky, kx] complex64
    reference: np.ndarray | None  # [h, w] float32
    mask: np.ndarray | None  # the file's own, [1, kx] float32 of 0 and 1, zero in the padding


def read_record(file: Path) -> Record:
    """Read what is known of a file, and check what can be without reading every slice.

    Raises:
        InputError: naming the file, the field, what is wrong with it and what to do.
    """
    with reading(file):
        return isolated(_read_record, file)


def _read_record(file: Path) -> Record:
    with h5py.File(file) as content:
        stat = file.stat()
        kspace = stored_dataset(content, "kspace")
        if kspace.ndim not in (3, 4) or 0 in kspace.shape or kspace.dtype.kind != "c":
            raise InputError(f"kspace is {kspace.dtype} of shape {kspace.shape}, expected complex "
                             "(slice, ky, kx) or (slice, coil, ky, kx); convert it")
        references = {}
        for name in REFERENCES:
            if name in content:
                references[name] = _reference_shape(content, name, kspace.shape[0])
        header = read_header(content, "ismrmrd_header")
        width = kspace.shape[-1]
        padding = _padding(header, width)
        mask = _mask(content, width, padding)
        acquired = valid_columns(width, padding)
        sampled = acquired if mask is None else mask[0] > 0
        _, one = first_signal(len(kspace), lambda index: finite("kspace", index, kspace[index]))
        measured = np.asarray(one.reshape(-1, width).any(axis=0))
        left_out = acquired & ~sampled
        return Record(
            name=file.name, size=stat.st_size, mtime_ns=stat.st_mtime_ns, kspace=kspace.shape,
            references=references, padding=padding,
            recon=(header.number("encoding/reconSpace/matrixSize/x"),
                   header.number("encoding/reconSpace/matrixSize/y")),
            spacing=header.spacing(), masked=mask is not None,
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
    with reading(file), h5py.File(file) as content:
        mask = _mask(content, record.kspace[-1], record.padding)
        for index in indices:
            kspace, image = finite("kspace", index, content["kspace"][index]), None
            if reference in record.references:
                image = finite(reference, index, content[reference][index], np.float32)
            yield Slice(kspace if kspace.ndim == 3 else kspace[None], image, mask)


def read_fastmri_mask(file: Path, record: Record) -> np.ndarray | None:
    """The sampling mask of a file alone, as in `Slice`."""
    with reading(file), h5py.File(file) as content:
        return _mask(content, record.kspace[-1], record.padding)


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


def _reference_shape(content: h5py.File, name: str, slices: int) -> tuple[int, ...]:
    dataset = stored_dataset(content, name)
    if dataset.ndim != 3 or dataset.dtype.kind != "f" or dataset.shape[0] != slices \
            or 0 in dataset.shape:
        raise InputError(f"{name} is {dataset.dtype} of shape {dataset.shape}, expected real "
                         f"({slices}, h, w), as many slices as kspace; download it again")
    finite(name, slices // 2, dataset[slices // 2], np.float32)
    return dataset.shape


def _mask(content: h5py.File, width: int, padding: tuple[int, int]) -> np.ndarray | None:
    if "mask" not in content:
        return None
    dataset = stored_dataset(content, "mask")
    if dataset.shape != (width,):
        raise InputError(f"mask has shape {dataset.shape}, expected {(width,)}: a number per "
                         "column of kspace; download it again")
    return binary_mask("mask", dataset[()]) * np.float32(valid_columns(width, padding))


def _central_run(sampled: np.ndarray) -> int:
    """The largest number of columns, placed at the center, of which none is left out."""
    width, run = len(sampled), 0
    while run < width and sampled[(width - run) // 2:(width + run) // 2 + 1].all():
        run += 1
    return run


def _attributes(content: h5py.File) -> dict[str, str]:
    found = {}
    for name in ATTRIBUTES:
        value = np.asarray(content.attrs.get(name, ()))
        if value.size == 1:
            one = value.item()
            found[name] = one.decode(errors="replace") if isinstance(one, bytes) else str(one)
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
