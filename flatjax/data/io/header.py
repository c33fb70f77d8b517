"""The ISMRMRD header (Inati et al., MRM 2017) of fastMRI's and ISMRMRD's files.

It is XML from a file that anybody may have made: its length is bounded, and a document type, the
only place where entities can be declared, is refused before anything of it is expanded or fetched.
"""

from xml.etree import ElementTree

import h5py
import numpy as np

from flatjax.data.io.hdf5 import stored_dataset
from flatjax.errors import InputError

NAMESPACE = "http://www.ismrm.org/ISMRMRD"
MAX_BYTES = 4 * 2**20  # scanners write some tens of kilobytes
_LARGEST = 2**16 - 1  # ISMRMRD's unsignedShort


class _Builder(ElementTree.TreeBuilder):
    """Builds the tree of a header, and ends where a document type begins."""

    def doctype(self, *_: object) -> None:
        raise InputError("declares a document type, with which XML can define entities that "
                         "expand without end or read other files; scanners write none: do not "
                         "trust this file, download it again from where it is published")


class Header:
    """Fields of a header, by paths as `encoding/encodedSpace/matrixSize/x`: first ones if several.

    `name` is the dataset's, for messages. What is too long, not well-formed or has a document type
    raises `InputError`.
    """

    def __init__(self, xml: bytes, name: str) -> None:
        self.name = name
        if len(xml) > MAX_BYTES:
            raise InputError(f"{name} has {len(xml)} bytes, expected at most {MAX_BYTES}; it "
                             "cannot be a scanner's: download the file again")
        try:
            self._root = ElementTree.fromstring(xml, ElementTree.XMLParser(target=_Builder()))
        except InputError as error:
            raise InputError(f"{name} {error}") from error
        except (ElementTree.ParseError, ValueError, LookupError) as error:
            raise InputError(f"{name} is not well-formed XML ({error}); download the file "
                             "again") from error

    def text(self, path: str) -> str:
        """The text of a field, "" if it is missing."""
        first = "/".join(f"{{{NAMESPACE}}}{tag}[1]" for tag in path.split("/"))
        return (self._root.findtext(first) or "").strip()

    def number(self, path: str, least: int = 1) -> int:
        """A field as a whole number from `least` to 65535; anything else raises `InputError`."""
        digits = self.text(path)
        if not (digits.isascii() and digits.isdigit() and len(digits) <= 5
                and least <= int(digits) <= _LARGEST):
            raise InputError(f"{self.name} has {digits[:20]!r} at ismrmrdHeader/{path} in the "
                             f"namespace {NAMESPACE}, expected a whole number from {least} to "
                             f"{_LARGEST}; download the file again")
        return int(digits)

    def field_of_view(self, space: str) -> tuple[float, float, float] | None:
        """Size in mm along x, y and z of encodedSpace or reconSpace, if told."""
        path = f"encoding/{space}/fieldOfView_mm/"
        try:
            x, y, z = (float(self.text(path + axis)) for axis in "xyz")
        except ValueError:
            return None
        return (x, y, z) if all(0 < size < np.inf for size in (x, y, z)) else None

    def spacing(self) -> tuple[float, float, float] | None:
        """Size in mm along `(x, y, slice)` of the voxels of images `[slice, y, x]`, if told.

        Their rows run along the readout and their columns along phase encoding.
        """
        whole = self.field_of_view("encodedSpace")
        try:
            matrix = [int(self.text(f"encoding/encodedSpace/matrixSize/{axis}")) for axis in "xyz"]
            y, x, z = (size / n for size, n in zip(whole or (), matrix, strict=True))
        except (ValueError, ZeroDivisionError, OverflowError):
            return None
        return (x, y, z) if all(0 < size < 1e5 for size in (x, y, z)) else None


def read_header(content: h5py.File, name: str) -> Header:
    """The header that a dataset of one string holds."""
    dataset = stored_dataset(content, name)
    if dataset.size != 1 or not h5py.check_string_dtype(dataset.dtype):
        raise InputError(f"{name} is {dataset.dtype} of shape {dataset.shape}, expected one string "
                         "of XML; download it again")
    xml = np.asarray(dataset[()]).item()
    return Header(xml.encode() if isinstance(xml, str) else bytes(xml), name)
