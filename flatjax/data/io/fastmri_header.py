"""The few numbers that fastMRI keeps in a file's ISMRMRD header (Inati et al., MRM 2017).

The header is XML from a file that anybody may have made, so it is read as a stream by expat: a
document type, the only place where entities can be declared, is refused before anything of it
is expanded or fetched; no tree is built; and its length is bounded.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple
from xml.parsers import expat

from flatjax.errors import InputError

NAMESPACE = "http://www.ismrm.org/ISMRMRD"
MAX_BYTES = 4 * 2**20  # scanners write some tens of kilobytes
_LARGEST = 2**16 - 1  # ISMRMRD's unsignedShort
_ENCODING = ("ismrmrdHeader", "encoding")
_FIELDS = {
    "encoded_y": ("encodedSpace", "matrixSize", "y"),
    "recon_x": ("reconSpace", "matrixSize", "x"),
    "recon_y": ("reconSpace", "matrixSize", "y"),
    "center": ("encodingLimits", "kspace_encoding_step_1", "center"),
    "maximum": ("encodingLimits", "kspace_encoding_step_1", "maximum"),
}
_FROM_ZERO = ("center", "maximum")


class Header(NamedTuple):
    """What the header tells about the first encoding.

    Attributes:
        padding: `(left, right)`: columns `left <= kx < right` were acquired, the others are
            zeros; it may reach beyond k-space, see `parse`.
        recon: `(x, y)` matrix size of the reconstructed image: rows, then columns of fastMRI's.
    """

    padding: tuple[int, int]
    recon: tuple[int, int]


def parse(xml: bytes) -> Header:
    """Read a header.

    As fastMRI does, `left = encoded_y // 2 - center` and `right = left + maximum + 1`, with the
    center and maximum of kspace_encoding_step_1.

    Args:
        xml: the dataset `ismrmrd_header` of a file.

    Raises:
        InputError: it is too long, is not well-formed XML, has a document type, or lacks one of
            these fields or has another thing than a number there. The message does not name the
            file.
    """
    found = texts(xml, {name: _ENCODING + path for name, path in _FIELDS.items()})
    values = {name: number(found.get(name), _ENCODING + path, 0 if name in _FROM_ZERO else 1)
              for name, path in _FIELDS.items()}
    left = values["encoded_y"] // 2 - values["center"]
    return Header((left, left + values["maximum"] + 1), (values["recon_x"], values["recon_y"]))


def spacing(xml: bytes) -> tuple[float, float, float] | None:
    """Size in mm of the voxels of images `[slice, y, x]` along `(x, y, slice)`.

    Their rows run along the readout and their columns along phase encoding.

    Returns:
        the encoded field of view over the encoded matrix, and its depth; None where the header
        does not tell.

    Raises:
        InputError: as `parse` says.
    """
    space = (*_ENCODING, "encodedSpace")
    found = texts(xml, {(kind, axis): (*space, kind, axis)
                        for kind in ("matrixSize", "fieldOfView_mm") for axis in "xyz"})
    try:
        size = {axis: float(found["fieldOfView_mm", axis]) / int(found["matrixSize", axis])
                for axis in "yxz"}
    except (KeyError, ValueError, ZeroDivisionError, OverflowError):
        return None
    if not all(0 < one < 1e5 for one in size.values()):
        return None
    return size["y"], size["x"], size["z"]


def texts(xml: bytes, fields: Mapping[Any, tuple[str, ...]]) -> dict[Any, str]:
    """The text of some fields, of the first encoding where there are several.

    Args:
        xml: the header.
        fields: the path of each, as `("ismrmrdHeader", "encoding", "trajectory")`.

    Returns:
        the text of each field that there is.

    Raises:
        InputError: as `parse` says.
    """
    if len(xml) > MAX_BYTES:
        raise InputError(f"ismrmrd_header has {len(xml)} bytes, expected at most {MAX_BYTES}; it "
                         "cannot be a scanner's: download the file again")
    names = {tuple(f"{NAMESPACE} {tag}" for tag in path): name for name, path in fields.items()}
    encoding = tuple(f"{NAMESPACE} {tag}" for tag in _ENCODING)
    depth = max(map(len, names))
    path: list[str] = []
    found: dict[Any, str] = {}
    ended = False

    def field() -> Any:
        if len(path) > depth or (ended and tuple(path[:len(encoding)]) == encoding):
            return None
        return names.get(tuple(path))

    def start(tag: str, attributes: dict[str, str]) -> None:
        path.append(tag)
        if field():
            found.setdefault(field(), "")

    def data(text: str) -> None:
        if field():
            found[field()] += text

    def end(tag: str) -> None:
        nonlocal ended
        ended = ended or (len(path) == len(encoding) and tuple(path) == encoding)
        path.pop()

    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = data
    parser.StartDoctypeDeclHandler = _refuse_doctype
    try:
        parser.Parse(xml, True)
    except InputError:
        raise
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise InputError(f"ismrmrd_header is not well-formed XML ({error}); download the file "
                         "again") from error
    return found


def _refuse_doctype(*declaration: object) -> None:
    raise InputError("ismrmrd_header declares a document type, with which XML can define entities "
                     "that expand without end or read other files; scanners write none: do not "
                     "trust this file, download it again from where it is published")


def number(text: str | None, path: tuple[str, ...], least: int) -> int:
    """A field of `texts` as a whole number, at least `least`.

    Raises:
        InputError: it is missing or something else; the message names its path.
    """
    where = "/".join(path)
    if text is None:
        raise InputError(f"ismrmrd_header has no {where} in the namespace {NAMESPACE}; expected "
                         "an ISMRMRD header as fastMRI writes it")
    digits = text.strip()
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 5
            and least <= int(digits) <= _LARGEST):
        raise InputError(f"ismrmrd_header has {digits[:20]!r} at {where}, expected a whole number "
                         f"from {least} to {_LARGEST}; download the file again")
    return int(digits)
