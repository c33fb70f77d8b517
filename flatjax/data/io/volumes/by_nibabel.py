"""What nibabel reads: NIfTI 1 and 2, MINC 1 (netCDF 3) and MINC 2 (HDF5)."""

import io
import math
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import nibabel
import numpy as np
from nibabel.imageglobals import LoggingOutputSuppressor
from nibabel.minc1 import Minc1File
from nibabel.minc2 import Minc2File
from scipy.io import netcdf_file

from flatjax.data.io.hdf5 import GREATEST_RATIO, isolated, stored_dataset
from flatjax.data.io.volumes.common import Stored, check_volume, is_packed, open_stream, read_most
from flatjax.errors import InputError

_LARGEST = 4 << 30  # bytes that a file compressed as a whole may unpack to
_MM = {1: 1e3, 3: 1e-3}  # by NIfTI's codes of meter and micron; others are, or count as, mm


def read_nifti(file: Path) -> Stored:
    """Read a `.nii` or `.nii.gz` file of one volume; see `READERS`."""
    with LoggingOutputSuppressor():  # what it says of damaged headers is said by our errors
        image: Any = nibabel.load(file)  # of a class that its header tells
    shape = image.shape[:3] if image.ndim > 3 and set(image.shape[3:]) == {1} else image.shape
    dtype = image.get_data_dtype()
    check_volume(shape, dtype)
    declared = dtype.itemsize * math.prod(shape)
    if declared > file.stat().st_size * (GREATEST_RATIO if is_packed(file) else 1):
        raise InputError(f"its header declares {declared} bytes of voxels, more than the file can "
                         "hold: it is cut short or damaged; download or export it again")
    voxels = np.asarray(image.dataobj, np.float32).reshape(shape)
    told = bool(image.header["qform_code"] or image.header["sform_code"])
    affine = image.affine if told else np.diag([*image.header.get_zooms()[:3], 1.0])
    affine[:3] *= _MM.get(int(image.header["xyzt_units"]) % 8, 1.0)
    return voxels, affine, told


def read_minc(file: Path) -> Stored:
    """Read a `.mnc` or `.mnc.gz` file of one volume; see `READERS`."""
    with open_stream(file) as stream:
        start = stream.read(4)
        if start == b"\x89HDF":
            return isolated(_read_minc2, file)
        content = netcdf_file(io.BytesIO(start + read_most(stream, _LARGEST)), mmap=False)
    _set_defaults(content.variables)
    return _minc_volume(Minc1File(content))


def _set_defaults(variables: dict[str, Any]) -> None:
    """What MINC 1 lets a file leave out, and nibabel does not."""
    image = variables["image"]
    vars(image).setdefault("signtype", b"unsigned" if image.typecode() == "b" else b"signed__")
    for axis in image.dimensions:
        vars(variables.setdefault(axis, SimpleNamespace())).setdefault("spacing", b"regular__")
    for name, value in (("image-min", 0.0), ("image-max", 1.0)):
        variables.setdefault(name, SimpleNamespace(dimensions=(), getValue=partial(float, value)))


def _read_minc2(file: Path) -> Stored:
    with open_stream(file) as stream, h5py.File(
            io.BytesIO(read_most(stream, _LARGEST)) if is_packed(file) else file, "r") as content:
        stored_dataset(content, "minc-2.0/image/0/image")
        return _minc_volume(Minc2File(content))


def _minc_volume(image: Minc1File) -> Stored:
    shape, affine = image.get_data_shape(), image.get_affine()
    if affine.shape != (4, 4):
        raise InputError("its axes are not xspace, yspace and zspace, expected one 3-D volume; "
                         "extract one")
    check_volume(shape, image.get_data_dtype())
    with np.errstate(all="ignore"):  # what is not finite is refused later
        return np.asarray(image.get_scaled_data(), np.float32), affine, True
