"""NRRD, attached (`.nrrd`) or with its voxels in a file beside (`.nhdr`).

Format: teem.sourceforge.net/nrrd/format.html, versions 1 to 5.
"""

import bz2
import gzip
import io
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from flatjax.data.io.volumes.common import (
    CHUNK,
    Stored,
    Stream,
    check_volume,
    open_stream,
    read_voxels,
)
from flatjax.errors import InputError

_LONGEST_HEADER = 1 << 20
_TYPES = {name: code for code, names in {
    "i1": "signed char|int8|int8_t", "u1": "uchar|unsigned char|uint8|uint8_t",
    "i2": "short|short int|signed short|signed short int|int16|int16_t",
    "u2": "ushort|unsigned short|unsigned short int|uint16|uint16_t",
    "i4": "int|signed int|int32|int32_t", "u4": "uint|unsigned int|uint32|uint32_t",
    "i8": "longlong|long long|long long int|signed long long|signed long long int|int64|int64_t",
    "u8": "ulonglong|unsigned long long|unsigned long long int|uint64|uint64_t",
    "f4": "float", "f8": "double"}.items() for name in names.split("|")}
_SPACES = {  # what the first two axes have to be multiplied with to point right and anterior
    "right-anterior-superior": (1, 1), "ras": (1, 1),
    "left-anterior-superior": (-1, 1), "las": (-1, 1),
    "left-posterior-superior": (-1, -1), "lps": (-1, -1),
    "scanner-xyz": (1, 1), "3d-right-handed": (1, 1), "": (1, 1)}
_OPENERS: dict[str, Any] = {"raw": lambda stream: stream, "gzip": gzip.open, "gz": gzip.open,
                            "bzip2": bz2.open, "bz2": bz2.open}
_ENDIAN = {"little": "<", "big": ">"}


def read_nrrd(file: Path) -> Stored:
    """Read a `.nrrd` or `.nhdr` file of one volume; see `READERS`."""
    with open_stream(file) as stream:
        fields = _header(stream)
        shape, affine = _geometry(fields)
        beside = fields.get("data file", fields.get("datafile"))
        if beside is None:
            return _voxels(stream, fields, shape), affine, "space" in fields
    if Path(beside).name != beside or not (file.parent / beside).is_file():
        raise InputError(f"its data file is {beside!r}, expected the name of one file beside it; "
                         "copy both together, or put its voxels in one")
    with (file.parent / beside).open("rb") as stream:
        return _voxels(stream, fields, shape), affine, "space" in fields


def _header(stream: Stream) -> dict[str, str]:
    """The fields, names in lower case; the stream is left at what follows the empty line."""
    text = stream.readline(64)
    if not re.fullmatch(rb"NRRD000[1-5]\r?\n", text):
        raise InputError(f"begins with {text[:12]!r}, expected NRRD0001 to NRRD0005; it is another "
                         "format under this name, or damaged")
    fields, left = {}, _LONGEST_HEADER
    while (line := stream.readline(left)).strip(b"\r\n"):
        left -= len(line)
        if left <= 0:
            raise InputError(f"its header does not end within {_LONGEST_HEADER} bytes; it is "
                             "damaged: download or export it again")
        name, separator, value = line.decode("utf-8", "replace").partition(": ")
        if separator and not name.startswith("#") and ":=" not in name:
            fields[name.strip().lower()] = value.strip()
    return fields


def _geometry(fields: dict[str, str]) -> tuple[tuple[int, ...], np.ndarray]:
    """Shape and affine `[3, 4]` of the volume, without axes of one element beyond space."""
    sizes = _numbers("sizes", fields.get("sizes", ""), int)
    directions = _directions(fields, len(sizes))
    if len(directions) != len(sizes) or any(len(one) not in (0, 3) for one in directions):
        raise InputError(f"its space directions or spacings are not those of {len(sizes)} axes in "
                         "three dimensions, expected them as (1,0,0) (0,1,0) (0,0,1); write it "
                         "again")
    kept = [axis for axis, size in enumerate(sizes) if size != 1 or len(directions[axis])]
    shape = tuple(sizes[axis] for axis in kept)
    steps = [directions[axis] for axis in kept if len(directions[axis])]
    origin = _numbers("space origin", fields.get("space origin", "0 0 0"))
    space = fields.get("space", "").lower()
    units = {*re.findall('"(.*?)"', fields.get("space units", ""))} - {"mm", ""}
    if units:
        raise InputError(f"its space units are {', '.join(sorted(units))}, expected mm; write it "
                         "again")
    if not len(shape) == len(steps) == len(origin) == 3 or space not in _SPACES:
        raise InputError(f"its sizes are {sizes[:8]}, its space is {space!r} and its space "
                         f"origin {origin[:8]}, expected one 3-D volume in one of the spaces "
                         f"{', '.join(name for name in _SPACES if name)}; write it again")
    return shape, np.diag([*_SPACES[space], 1]) @ np.stack([*steps, origin], axis=1)


def _directions(fields: dict[str, str], count: int) -> list[Any]:
    """The step in mm along each axis, empty for one that is no direction in space."""
    if "space directions" in fields:
        return [_numbers("space directions", text.removeprefix("none"))
                for text in re.findall(r"none|\([^()]*\)", fields["space directions"])]
    spacings = _numbers("spacings", fields.get("spacings", count * "1 "))
    steps = iter(np.eye(3))
    return [one * next(steps, np.zeros(0)) if count == 3 or np.isfinite(one) else []
            for one in spacings]


def _voxels(stream: Stream, fields: dict[str, str], shape: tuple[int, ...]) -> np.ndarray:
    kind, endian = fields.get("type", "").lower(), fields.get("endian", "").lower()
    encoding = fields.get("encoding", "").lower()
    code = _TYPES.get(kind, "")
    if not code or encoding not in _OPENERS or (endian not in _ENDIAN and code[1] != "1"):
        raise InputError(f"its voxels are of type {kind!r}, encoding {encoding!r} and "
                         f"endian {endian!r}, expected real numbers, one of "
                         f"{', '.join(_OPENERS)}, and little or big; write it again")
    dtype = np.dtype(_ENDIAN.get(endian, "<") + code)
    check_volume(shape, dtype)
    line_skip, byte_skip = (_numbers(f"{unit} skip", fields.get(
        f"{unit} skip", fields.get(f"{unit}skip", "0")), int)[0] for unit in ("line", "byte"))
    for _ in range(line_skip):
        if not stream.readline(_LONGEST_HEADER):
            break
    if byte_skip < -1:
        raise InputError(f"byte skip is {byte_skip}, expected a whole number, or -1; write it "
                         "again")
    stream = _OPENERS[encoding](stream)
    if byte_skip == -1:  # the voxels end the file, or what it unpacks to
        content = bytearray()
        while chunk := stream.read(CHUNK):
            content += chunk
            del content[:-dtype.itemsize * math.prod(shape)]
        stream = io.BytesIO(content)
    stream.seek(max(byte_skip, 0), io.SEEK_CUR)
    return read_voxels(stream, shape, dtype).reshape(shape, order="F")


def _numbers(name: str, text: str, kind: Callable[[str], Any] = float) -> list[Any]:
    """The numbers of a field, without its brackets and commas."""
    try:
        return [kind(word) for word in re.split(r"[\s,()]+", text) if word]
    except ValueError as error:
        raise InputError(f"its {name} has {text[:80]!r}, expected numbers; export it "
                         "again") from error
