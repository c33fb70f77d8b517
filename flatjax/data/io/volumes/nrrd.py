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
from typing import Any, TypeVar

import numpy as np

from flatjax.data.io.hdf5 import GREATEST_RATIO
from flatjax.data.io.volumes.common import (
    Stream,
    check_declared,
    check_volume,
    most_bytes,
    open_stream,
    read_exactly,
    to_ras,
)
from flatjax.errors import InputError

Number = TypeVar("Number", int, float)
_LONGEST_HEADER = 1 << 20
_TYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": ("longlong", "long long", "long long int", "signed long long",
           "signed long long int", "int64", "int64_t"),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}
_SPACES = {  # what the first two axes have to be multiplied with to point right and anterior
    "right-anterior-superior": (1, 1), "ras": (1, 1),
    "left-anterior-superior": (-1, 1), "las": (-1, 1),
    "left-posterior-superior": (-1, -1), "lps": (-1, -1),
    "scanner-xyz": (1, 1), "3d-right-handed": (1, 1), "": (1, 1),
}
_ENCODINGS = {"raw": "raw", "gzip": "gzip", "gz": "gzip", "bzip2": "bzip2", "bz2": "bzip2"}


def read_nrrd(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a `.nrrd` or `.nhdr` file of one volume; see `read_placed`."""
    with open_stream(file) as stream:
        fields = _header(file, stream)
        shape, dtype, affine = _geometry(file, fields)
        names = [key for key in ("data file", "datafile") if key in fields]
        if not names:
            return _voxels(file, stream, fields, shape, dtype, affine)
    beside = _data_file(file, fields[names[0]])
    with beside.open("rb") as stream:
        return _voxels(beside, stream, fields, shape, dtype, affine)


def _voxels(file: Path, stream: Stream, fields: dict[str, str], shape: tuple[int, ...],
            dtype: np.dtype, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    encoding = _ENCODINGS.get(fields.get("encoding", "").lower())
    if encoding is None:
        raise InputError(f"{file}: its encoding is {fields.get('encoding')!r}, expected one of "
                         f"{', '.join(_ENCODINGS)}; write it again with one of these")
    count = dtype.itemsize * math.prod(shape)
    ratio = {"raw": 1, "gzip": GREATEST_RATIO, "bzip2": 1 << 22}[encoding]
    check_declared(file, count, ratio * most_bytes(file))
    for _ in range(_whole(file, fields, "line skip")):
        stream.readline(_LONGEST_HEADER)
    skip = _whole(file, fields, "byte skip", least=-1)
    if skip == -1:
        if encoding != "raw":
            raise InputError(f"{file}: byte skip is -1 with encoding {encoding}, expected raw; "
                             "write it again")
        stream.seek(-count, io.SEEK_END)
        skip = 0
    if encoding == "raw":
        stream.seek(skip, io.SEEK_CUR)
    else:
        unpacked: Any = {"gzip": gzip.open, "bzip2": bz2.open}[encoding](stream)
        stream = unpacked
        read_exactly(file, stream, skip)
    content = np.frombuffer(read_exactly(file, stream, count), dtype)
    return to_ras(file, content.reshape(shape, order="F"), affine)


def _header(file: Path, stream: Stream) -> dict[str, str]:
    """The fields, names in lower case; the stream is left at what follows the empty line."""
    text = stream.readline(64)
    if not re.fullmatch(rb"NRRD000[1-5]\r?\n", text):
        raise InputError(f"{file}: begins with {text[:12]!r}, expected NRRD0001 to NRRD0005; it is "
                         "another format under this name, or damaged")
    fields, length = {}, 0
    while line := stream.readline(_LONGEST_HEADER):
        length += len(line)
        if length >= _LONGEST_HEADER:
            raise InputError(f"{file}: its header does not end within {_LONGEST_HEADER} bytes; it "
                             "is damaged: download or export it again")
        decoded = line.decode("utf-8", "replace").rstrip("\r\n")
        if not decoded:
            break
        name, separator, value = decoded.partition(": ")
        if separator and not decoded.startswith("#") and ":=" not in name:
            fields[name.strip().lower()] = value.strip()
    return fields


def _geometry(file: Path, fields: dict[str, str]) -> tuple[tuple[int, ...], np.dtype, np.ndarray]:
    """Shape, type and affine `[3, 4]` of the volume, without axes of one element beyond space."""
    for name in ("type", "sizes", "encoding"):
        if name not in fields:
            raise InputError(f"{file}: its header has no field {name}; download or export it again")
    code = [code for code, names in _TYPES.items() if fields["type"].lower() in names]
    if not code:
        raise InputError(f"{file}: its voxels are {fields['type']!r}, expected real numbers; save "
                         "the magnitude")
    endian = fields.get("endian", "").lower()
    if endian not in ("little", "big") and code[0][1] != "1":
        raise InputError(f"{file}: its field endian is {endian!r}, expected little or big; write "
                         "it again")
    dtype = np.dtype(("<" if endian == "little" else ">") + code[0])
    sizes = tuple(_number(file, "sizes", word, int) for word in fields["sizes"].split())
    directions = _directions(file, fields, len(sizes))
    kept = [axis for axis, (size, direction) in enumerate(zip(sizes, directions, strict=True))
            if len(sizes) <= 3 or size > 1 or direction is not None]
    shape = tuple(sizes[axis] for axis in kept)
    check_volume(file, shape, dtype)
    steps = [step for axis in kept if (step := directions[axis]) is not None]
    if len(steps) < len(kept):
        raise InputError(f"{file}: of {shape} not every axis is a direction in space, expected "
                         "one 3-D volume; extract one")
    space = fields.get("space", "").lower()
    if space not in _SPACES:
        raise InputError(f"{file}: its space is {space!r}, expected one of "
                         f"{', '.join(name for name in _SPACES if name)}; write it again")
    columns = np.stack([*steps, _origin(file, fields)], axis=1)
    return shape, dtype, np.diag([*_SPACES[space], 1]) @ columns


def _origin(file: Path, fields: dict[str, str]) -> np.ndarray:
    """The position of the first voxel in mm, 0 where the header does not tell."""
    words = fields.get("space origin", "(0,0,0)").strip("()").split(",")
    if len(words) != 3:
        raise InputError(f"{file}: its space origin is {fields['space origin']!r}, expected a "
                         "vector of three numbers, as (0,0,0); write it again")
    return np.array([_number(file, "space origin", word, float) for word in words])


def _directions(file: Path, fields: dict[str, str], count: int) -> list[np.ndarray | None]:
    """The step in mm along each axis, None for one that is no direction in space."""
    if "space directions" not in fields:
        spacings = [_number(file, "spacings", word, float)
                    for word in fields.get("spacings", " ".join(["1"] * count)).split()]
        if len(spacings) != count:
            raise InputError(f"{file}: has {len(spacings)} spacings for {count} axes; write it "
                             "again")
        if count == 3:
            return list(np.diag(spacings))
        spatial = [axis for axis in range(count) if np.isfinite(spacings[axis])][:3]
        return [spacings[axis] * np.eye(3)[spatial.index(axis)] if axis in spatial else None
                for axis in range(count)]
    found = re.findall(r"none|\([^()]*\)", fields["space directions"])
    directions = [None if text == "none" else np.array(
        [_number(file, "space directions", word, float) for word in text[1:-1].split(",")])
        for text in found]
    if len(directions) != count or any(one is not None and one.shape != (3,)
                                       for one in directions):
        raise InputError(f"{file}: its space directions are {fields['space directions']!r}, "
                         f"expected {count} vectors of three numbers, as (1,0,0); write it again")
    return directions


def _data_file(file: Path, name: str) -> Path:
    beside = file.parent / name
    if Path(name).name != name or "%" in name or name.startswith("LIST"):
        raise InputError(f"{file}: its data file is {name!r}, expected the name of one file beside "
                         "it; put its voxels in one")
    if not beside.is_file():
        raise InputError(f"{file}: its data file {name} is not beside it; copy both together")
    return beside


def _whole(file: Path, fields: dict[str, str], name: str, least: int = 0) -> int:
    value = _number(file, name, fields.get(name, fields.get(name.replace(" ", ""), "0")), int)
    if not least <= value <= most_bytes(file):
        raise InputError(f"{file}: its {name} is {value}, expected a number within the file; "
                         "download or export it again")
    return value


def _number(file: Path, name: str, text: str, kind: Callable[[str], Number]) -> Number:
    try:
        return kind(text)
    except ValueError as error:
        raise InputError(f"{file}: its {name} has {text!r}, expected a number; download or export "
                         "it again") from error
