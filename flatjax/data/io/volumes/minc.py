"""MINC 1 (netCDF 3) and MINC 2 (HDF5), the formats of the Montreal Neurological Institute.

Format: en.wikibooks.org/wiki/MINC/Reference. Dimensions are named, so their order in the file does
not matter; MINC's world is right, anterior, superior as ours.
"""

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from scipy.io import netcdf_file

from flatjax.data.io.hdf5 import GREATEST_RATIO, isolated
from flatjax.data.io.volumes.common import (
    Stream,
    check_declared,
    check_volume,
    is_packed,
    open_stream,
    to_ras,
)
from flatjax.errors import InputError

_AXES = {"xspace": (1.0, 0.0, 0.0), "yspace": (0.0, 1.0, 0.0), "zspace": (0.0, 0.0, 1.0)}
_OF_VOXELS = ("valid_range", "valid_min", "valid_max")
_OF_DIMENSIONS = ("spacing", "direction_cosines", "step", "start")
_CHUNK = 1 << 20
_LARGEST = 4 << 30  # bytes that a file compressed as a whole may unpack to


class _Content(NamedTuple):
    """What both versions hold: voxels, axis names, and attributes of image and dimensions."""

    voxels: np.ndarray
    axes: tuple[str, ...]
    attributes: Mapping[str, Any]
    dimensions: Mapping[str, Mapping[str, Any]]
    lowest: tuple[np.ndarray, tuple[str, ...]] | None
    highest: tuple[np.ndarray, tuple[str, ...]] | None


def read_minc(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a `.mnc` or `.mnc.gz` file of one volume; see `read_placed`."""
    with open_stream(file) as stream:
        start = stream.read(4)
        if start[:3] == b"CDF":
            content = _read_netcdf(file, io.BytesIO(start + _rest(file, stream)))
        elif start == b"\x89HDF":
            content = isolated(_read_hdf5, file)
        else:
            raise InputError(f"{file}: is neither MINC 1 nor MINC 2 (it begins with {start!r}); it "
                             "is another format under this name, or damaged")
    return to_ras(file, _scaled(file, content), _affine(file, content))


def _rest(file: Path, stream: Stream) -> bytes:
    content = bytearray()
    while chunk := stream.read(_CHUNK):  # asked for more, it would take that memory at once
        content += chunk
        if len(content) > _LARGEST:
            raise InputError(f"{file}: unpacks to more than {_LARGEST} bytes, expected one volume; "
                             "decompress it first if it is one")
    return bytes(content)


def _read_netcdf(file: Path, source: Stream) -> _Content:
    variables = netcdf_file(source, mmap=False).variables
    image = _member(file, variables, "image")
    axes = tuple(image.dimensions)
    attributes = image._attributes
    # bytes are unsigned unless it is said otherwise, larger integers signed
    unsigned = attributes.get("signtype", b"unsigned" if image.typecode() == "b" else b"")
    voxels = image.data
    _check(file, axes, voxels.shape, voxels.dtype)
    if voxels.dtype.kind == "i" and unsigned.startswith(b"unsigned"):
        voxels = voxels.view(voxels.dtype.str.replace("i", "u"))
    return _Content(
        voxels, axes, attributes,
        {axis: variables[axis]._attributes if axis in variables else {} for axis in axes},
        *((variables[name].data, variables[name].dimensions) if name in variables else None
          for name in ("image-min", "image-max")))


def _read_hdf5(file: Path) -> _Content:
    with open_stream(file) as stream, h5py.File(
            io.BytesIO(_rest(file, stream)) if is_packed(file) else file, "r") as content:
        root = _member(file, content, "minc-2.0")
        images = _member(file, root, "image/0")
        image = _member(file, images, "image")
        if not isinstance(image, h5py.Dataset) or image.external or image.is_virtual:
            raise InputError(f"{file}: its image is no array of its own; export it again")
        axes = _order(image)[:image.ndim]
        _check(file, axes, image.shape, image.dtype)
        stored = image.id.get_storage_size()
        check_declared(file, image.size * image.dtype.itemsize,
                       stored * (GREATEST_RATIO if image.chunks else 1))
        dimensions = {axis: _known(root[f"dimensions/{axis}"].attrs, _OF_DIMENSIONS)
                      if f"dimensions/{axis}" in root else {} for axis in axes}
        return _Content(
            image[()], axes, _known(image.attrs, _OF_VOXELS), dimensions,
            *((images[name][()], _order(images[name])[:images[name].ndim]) if name in images
              else None for name in ("image-min", "image-max")))


def _known(attributes: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: attributes[name] for name in names if name in attributes}


def _order(dataset: h5py.Dataset) -> tuple[str, ...]:
    order = dataset.attrs.get("dimorder", b"")
    return tuple((order if isinstance(order, str) else order.decode()).split(","))


def _member(file: Path, group: Mapping[str, Any], name: str) -> Any:
    if name not in group:
        raise InputError(f"{file}: has no {name}, expected a MINC volume; it holds something else "
                         "or is damaged")
    return group[name]


def _check(file: Path, axes: tuple[str, ...], shape: tuple[int, ...], dtype: np.dtype) -> None:
    if set(axes) != set(_AXES):
        raise InputError(f"{file}: its dimensions are {', '.join(axes)} of shape {shape}, expected "
                         "one 3-D volume of xspace, yspace and zspace; extract one")
    check_volume(file, shape, dtype)


def _affine(file: Path, content: _Content) -> np.ndarray:
    """`[3, 4]`: the step of each axis of the voxels in the world, and the first one's position."""
    columns, origin = [], np.zeros(3)
    for axis in content.axes:
        attributes = content.dimensions[axis]
        spacing = attributes.get("spacing", b"regular__")
        if spacing[:7] not in (b"regular", "regular"):
            raise InputError(f"{file}: the spacing of {axis} is irregular, expected even slices; "
                             "resample it first, for instance with mincresample")
        direction = np.asarray(attributes.get("direction_cosines", _AXES[axis]), float)
        columns.append(direction * float(attributes.get("step", 1.0)))
        origin += direction * float(attributes.get("start", 0.0))
    return np.stack([*columns, origin], axis=1)


def _scaled(file: Path, content: _Content) -> np.ndarray:
    """The real values float32: the valid range of integers is mapped to image-min and -max."""
    voxels = content.voxels
    if voxels.dtype.kind == "f":
        return voxels.astype(np.float32)
    limits = np.iinfo(voxels.dtype)
    attributes = content.attributes
    low, high = attributes.get("valid_range", (attributes.get("valid_min", limits.min),
                                               attributes.get("valid_max", limits.max)))
    low, high = max(float(low), limits.min), min(float(high), limits.max)
    bottom, top = (_along(file, content, bound, default) for bound, default in
                   ((content.lowest, 0.0), (content.highest, 1.0)))
    if not low < high:
        raise InputError(f"{file}: the valid range of its voxels is {low:g} to {high:g}, expected "
                         "a rising one; export it again")
    slope = (top - bottom) / (high - low)
    values = np.clip(voxels.astype(np.float32), np.float32(low), np.float32(high))
    values -= np.float32(low)
    values *= slope.astype(np.float32)
    values += bottom.astype(np.float32)
    return values


def _along(file: Path, content: _Content, bound: tuple[np.ndarray, tuple[str, ...]] | None,
           default: float) -> np.ndarray:
    """image-min or image-max, of shape `[n or 1, ...]` with an axis for each of the voxels'."""
    if bound is None:
        return np.full((1, 1, 1), default)
    values, axes = np.asarray(bound[0], np.float64), [axis for axis in bound[1] if axis]
    shape = tuple(size if axis in axes else 1
                  for axis, size in zip(content.axes, content.voxels.shape, strict=True))
    if tuple(axes) != content.axes[:len(axes)] or values.size != math.prod(shape):
        raise InputError(f"{file}: its image-min and image-max have the dimensions "
                         f"{', '.join(axes)}, expected the first of {', '.join(content.axes)}; "
                         "export it again")
    return values.reshape(shape)
