"""The few numbers that fastMRI keeps in a file's ISMRMRD header (Inati et al., MRM 2017).

The header is XML from a file that anybody may have made, so it is read as a stream by expat: a
document type, the only place where entities can be declared, is refused before anything of it
is expanded or fetched; no tree is built; and its length is bounded.
"""

from typing import NamedTuple
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
    "centre": ("encodingLimits", "kspace_encoding_step_1", "center"),
    "maximum": ("encodingLimits", "kspace_encoding_step_1", "maximum"),
}


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

    As fastMRI does, `left = encoded_y // 2 - centre` and `right = left + maximum + 1`, with the
    centre and maximum of kspace_encoding_step_1.

    Args:
        xml: the dataset `ismrmrd_header` of a file.

    Raises:
        InputError: it is too long, is not well-formed XML, has a document type, or lacks one of
            these fields or has another thing than a number there. The message does not name the
            file.
    """
    if len(xml) > MAX_BYTES:
        raise InputError(f"ismrmrd_header has {len(xml)} bytes, expected at most {MAX_BYTES}; it "
                         "cannot be a scanner's: download the file again")
    texts = _texts(xml)
    values = {name: _number(name, texts.get(name)) for name in _FIELDS}
    left = values["encoded_y"] // 2 - values["centre"]
    return Header((left, left + values["maximum"] + 1), (values["recon_x"], values["recon_y"]))


def _texts(xml: bytes) -> dict[str, str]:
    """The text of every field that the first encoding has."""
    names = {tuple(f"{NAMESPACE} {tag}" for tag in _ENCODING + path): name
             for name, path in _FIELDS.items()}
    encoding = tuple(f"{NAMESPACE} {tag}" for tag in _ENCODING)
    depth = max(map(len, names))
    path: list[str] = []
    texts: dict[str, str] = {}
    ended = False

    def field() -> str | None:
        return None if ended or len(path) != depth else names.get(tuple(path))

    def start(tag: str, attributes: dict[str, str]) -> None:
        path.append(tag)
        if field():
            texts.setdefault(field(), "")

    def data(text: str) -> None:
        if field():
            texts[field()] += text

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
    return texts


def _refuse_doctype(*declaration: object) -> None:
    raise InputError("ismrmrd_header declares a document type, with which XML can define entities "
                     "that expand without end or read other files; scanners write none: do not "
                     "trust this file, download it again from where it is published")


def _number(name: str, text: str | None) -> int:
    where = "/".join(_ENCODING + _FIELDS[name])
    if text is None:
        raise InputError(f"ismrmrd_header has no {where} in the namespace {NAMESPACE}; expected "
                         "an ISMRMRD header as fastMRI writes it")
    digits = text.strip()
    least = 0 if name in ("centre", "maximum") else 1
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 5
            and least <= int(digits) <= _LARGEST):
        raise InputError(f"ismrmrd_header has {digits[:20]!r} at {where}, expected a whole number "
                         f"from {least} to {_LARGEST}; download the file again")
    return int(digits)
