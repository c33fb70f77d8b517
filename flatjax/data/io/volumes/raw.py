"""Voxels without a header: what they are is known from the file's name, or has to be said."""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from flatjax.data.io.volumes.common import (
    Spacing,
    check_declared,
    most_bytes,
    open_stream,
    read_exactly,
    to_ras,
)
from flatjax.errors import InputError

TYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")


class Raw(NamedTuple):
    """How voxels lie in a file without a header; what is left open is taken from its name.

    `.rawb` holds uint8 and `.raws` int16, little-endian. BrainWeb's names give its grids, any other
    name the size as `_128x160x40`, columns first, and the type as `_int16`.

    Attributes:
        shape: voxels to the patient's right, anterior and superior, `(x, y, z)`.
        dtype: one of `TYPES`, little-endian, or with "be" after it big-endian, as "int16be".
        order: of the axes from the slowest to the fastest, as "zyx"; a capital letter for an axis
            that runs the other way: left, posterior or inferior.
        spacing: of x, y and z in mm; 1 mm if neither given nor known.
    """

    shape: Sequence[int] = ()
    dtype: str = ""
    order: str = "zyx"
    spacing: Sequence[float] = ()


def check_raw(raw: Raw) -> Raw:
    """The argument, if files can be read so.

    Raises:
        InputError: naming the value.
    """
    whole = all(isinstance(size, int) and not isinstance(size, bool) for size in raw.shape)
    if len(raw.shape) not in (0, 3) or not whole or min(raw.shape, default=1) < 1:
        raise InputError(f"raw_shape is {tuple(raw.shape)}, expected three whole numbers x, y, z, "
                         "or () to take it from the file's name")
    if raw.dtype and raw.dtype.removesuffix("be") not in TYPES:
        raise InputError(f"raw_dtype is {raw.dtype!r}, expected one of {', '.join(TYPES)}, with be "
                         "after it if big-endian, or nothing to take it from the file's name")
    if sorted(raw.order.lower()) != ["x", "y", "z"]:
        raise InputError(f"raw_order is {raw.order!r}, expected x, y and z from the slowest axis "
                         "to the fastest, as zyx")
    if len(raw.spacing) not in (0, 3) or not all(0 < size < math.inf for size in raw.spacing):
        raise InputError(f"raw_spacing is {tuple(raw.spacing)}, expected three sizes in mm, or ()")
    return raw


def read_raw(file: Path, raw: Raw | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Read a `.raw`, `.rawb` or `.raws` file, or one of them with `.gz`; see `read_placed`."""
    raw = check_raw(raw or Raw())
    shape, spacing = known_grid(file.name)
    shape, spacing = tuple(raw.shape) or shape, tuple(raw.spacing) or spacing
    dtype = raw.dtype or _known_type(file.name)
    if not shape or not dtype:
        lacking = " and ".join(["shape"] * (not shape) + ["dtype"] * (not dtype))
        raise InputError(f"{file}: has no header, and its name does not tell its {lacking}; set "
                         "data.raw_shape=(x,y,z) and data.raw_dtype, or name it as "
                         "head_128x160x40_int16.raw")
    stored = tuple(shape["xyz".index(axis)] for axis in raw.order.lower())
    kind = np.dtype(dtype.removesuffix("be")).newbyteorder(">" if dtype.endswith("be") else "<")
    count = kind.itemsize * math.prod(shape)
    check_declared(file, count, most_bytes(file))
    with open_stream(file) as stream:
        content = read_exactly(file, stream, count)
        if stream.read(1):
            raise InputError(f"{file}: holds more than {count} bytes, expected that many for "
                             f"{' x '.join(map(str, shape))} voxels of {dtype}; set "
                             "data.raw_shape=(x,y,z) and data.raw_dtype to what it holds")
    steps = np.zeros((3, 3))
    for column, axis in enumerate(raw.order):
        row = "xyz".index(axis.lower())
        steps[row, column] = spacing[row] if axis.islower() else -spacing[row]
    return to_ras(file, np.frombuffer(content, kind).reshape(stored), steps)


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
