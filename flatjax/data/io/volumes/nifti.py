"""NIfTI 1 and 2, by nibabel."""

import math
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.imageglobals import LoggingOutputSuppressor
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from flatjax.data.io.volumes.common import (
    DAMAGED,
    check_declared,
    check_volume,
    first_line,
    most_bytes,
    to_ras,
)
from flatjax.errors import InputError

_DAMAGED = (*DAMAGED, ImageFileError, HeaderDataError, WrapStructError)


def read_nifti(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a `.nii` or `.nii.gz` file of one volume; see `read_placed`."""
    try:
        with LoggingOutputSuppressor():  # what it says of damaged headers is said by our errors
            image: Any = nibabel.load(file)  # of a class that its header tells
    except _DAMAGED as error:
        raise InputError(f"{file}: is not a NIfTI file or is damaged ({first_line(error)}); "
                         "download or export it again") from error
    shape = image.shape[:3] if image.ndim > 3 and set(image.shape[3:]) == {1} else image.shape
    dtype = image.get_data_dtype()
    check_volume(file, shape, dtype)
    check_declared(file, dtype.itemsize * math.prod(shape), most_bytes(file))
    try:
        voxels = np.asarray(image.dataobj, np.float32).reshape(shape)
    except _DAMAGED as error:
        raise InputError(f"{file}: its voxels cannot be read, the file is cut short or damaged "
                         f"({first_line(error)}); download or export it again") from error
    told = int(image.header["qform_code"]) or int(image.header["sform_code"])
    affine = image.affine if told else np.diag([*image.header.get_zooms()[:3], 1.0])
    return to_ras(file, voxels, affine)
