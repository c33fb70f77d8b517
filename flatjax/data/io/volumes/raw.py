"""Voxels without a header: what they are is known from the file's name, or has to be said."""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from flatjax.data.io.volumes.common import Spacing, Stored, open_stream, read_voxels
from flatjax.errors import InputError

TYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")


class Raw(NamedTuple):
    """How voxels lie in a file without a header; what is left open is taken from its name.

    `.rawb` holds uint8 and `.raws` int16, little-endian. BrainWeb's names give its grids, any other
    name the size as `_128x160x40`, columns first, and the type as `_int16`.
    """

    shape: Sequence[int] = ()  # voxels to the patient's right, anterior and superior, `(x, y, z)`
    dtype: str = ""  # one of `TYPES`, little-endian, or with "be" after it big-endian, as "int16be"
    order: str = "zyx"  # of the axes from the slowest to the fastest; a capital letter for an axis
    # that runs the other way: left, posterior or inferior
    spacing: Sequence[float] = ()  # of x, y and z in mm; 1 mm if neither given nor known


def read_raw(file: Path, raw: Raw | None = None) -> Stored:
    """Read a `.raw`, `.rawb` or `.raws` file, or one of them with `.gz`; see `READERS`."""
    raw = raw or Raw()
    known_shape, known_spacing = known_grid(file.name)
    shape, spacing = tuple(raw.shape) or known_shape, tuple(raw.spacing) or known_spacing
    dtype = raw.dtype or _known_type(file.name)
    if not shape or not dtype:
        raise InputError("has no header, and its name does not tell its shape and dtype; set "
                         "data.raw_shape=(x,y,z) and data.raw_dtype, or name it as "
                         "head_128x160x40_int16.raw")
    if len(shape) != 3 or not all(isinstance(size, int) and size > 0 for size in shape) \
            or dtype.removesuffix("be") not in TYPES or sorted(raw.order.lower()) != list("xyz") \
            or len(spacing) != 3 or not all(0 < size < math.inf for size in spacing):
        raise InputError(f"raw_shape is {shape}, raw_dtype {dtype!r}, raw_order {raw.order!r} and "
                         f"raw_spacing {spacing}, expected three whole numbers x, y, z, one of "
                         f"{', '.join(TYPES)}, with be after it if big-endian, x, y and z from the "
                         "slowest axis to the fastest, as zyx, and three sizes in mm")
    stored = tuple(shape["xyz".index(axis)] for axis in raw.order.lower())
    kind = np.dtype(dtype.removesuffix("be")).newbyteorder(">" if dtype.endswith("be") else "<")
    with open_stream(file) as stream:
        voxels = read_voxels(stream, stored, kind)
        if stream.read(1):
            raise InputError(f"holds more than {voxels.nbytes} bytes, expected that many for "
                             f"{' x '.join(map(str, shape))} voxels of {dtype}; set "
                             "data.raw_shape=(x,y,z) and data.raw_dtype to what it holds")
    affine = np.zeros((3, 4))
    for column, axis in enumerate(raw.order):
        row = "xyz".index(axis.lower())
        affine[row, column] = spacing[row] if axis.islower() else -spacing[row]
    return voxels.reshape(stored), affine, False


def known_grid(name: str) -> tuple[tuple[int, ...], Spacing]:
    """Shape `(x, y, z)` and spacing in mm that a file name tells; `()` and 1 mm if it does not.

    BrainWeb: `t1_icbm_normal_3mm_pn3_rf20` and `phantom_1.0mm_normal_crisp` lie on the grid of
    181 x 217 x 181 mm in slices of so many mm; `subject04_t1w_p4` is 256 x 256 x 181 voxels of
    1 mm, and the other volumes of a subject are 362 x 434 x 362 of half a mm.
    """
    name = name.lower()
    size = re.search(r"(?<!\d)(\d+)x(\d+)x(\d+)(?!\d)", name)
    if size:
        return tuple(map(int, size.groups())), (1.0, 1.0, 1.0)
    slices = re.match(r"(?:(?:t1|t2|pd)_\w+|phantom)_(\d+)(?:\.0)?mm_", name)
    if slices and int(slices[1]) > 0:
        return (181, 217, round(181 / int(slices[1]))), (1.0, 1.0, float(slices[1]))
    if re.match(r"subject\d\d_t1w", name):
        return (256, 256, 181), (1.0, 1.0, 1.0)
    if re.match(r"subject\d\d_", name):
        return (362, 434, 362), (0.5, 0.5, 0.5)
    return (), (1.0, 1.0, 1.0)


def _known_type(name: str) -> str:
    name = name.lower().removesuffix(".gz")
    found = re.search(rf"_((?:{'|'.join(TYPES)})(?:be)?)(?![a-z0-9])", name)
    return found[1] if found else {".rawb": "uint8", ".raws": "int16"}.get(Path(name).suffix, "")
