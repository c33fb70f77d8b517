"""k-space of a fastMRI file on its own, as `data.io.fastmri_files` reads it."""

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from flatjax.data.io import fastmri_header
from flatjax.data.io.fastmri_files import Record, crop_shape, read_fastmri_slices, read_record
from flatjax.data.io.hdf5 import isolated, open_hdf5
from flatjax.data.io.kspace.base import Scan, as_slices, binary_mask
from flatjax.errors import InputError

_OPTIONAL = ("acquisition", "patient_id", "acceleration")


def open_fastmri(file: Path) -> Scan:
    """A fastMRI file, knee or brain, single- or multi-coil.

    Its mask is the stored one, zero where the scanner padded; the crop is that of its reference,
    or of the header for files without.

    Raises:
        InputError: as `fastmri_files.read_record` says.
    """
    record = read_record(file)
    kspace = record.kspace
    shape = as_slices(file, "kspace", kspace if len(kspace) == 4 else (kspace[0], 1, *kspace[1:]))
    try:
        reference = next(iter(record.references), "")
        crop = crop_shape(record, reference)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
    facts = {name: str(value) for name, value in record.attributes.items() if name in _OPTIONAL}
    missing = [name for name in _OPTIONAL[:2] if name not in facts]
    missing += [] if record.references else ["reference"]
    missing += [] if record.masked else ["mask"]
    mask, spacing = isolated(_contents, file, record)
    return Scan(file, file.stem, "fastMRI .h5", shape, partial(_slices, file, record), mask=mask,
                crop=crop, spacing=spacing, facts=facts, missing=tuple(missing))


def _contents(file: Path, record: Record
              ) -> tuple[np.ndarray | None, tuple[float, float, float] | None]:
    """The file's own mask and the size of its voxels."""
    with open_hdf5(file) as content:
        xml = np.asarray(content["ismrmrd_header"][()]).item()
        spacing = fastmri_header.spacing(xml.encode() if isinstance(xml, str) else bytes(xml))
        if not record.masked:
            return None, spacing
        mask = binary_mask(file, "mask", content["mask"][()])
    left, right = record.padding
    mask[:, :left] = mask[:, right:] = 0
    return mask, spacing


def _slices(file: Path, record: Record, indices: Iterable[int]) -> Iterator[np.ndarray]:
    for one in read_fastmri_slices(file, record, list(indices), ""):
        yield one.kspace
