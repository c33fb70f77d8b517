"""What every reader of files does: open one, and say in one line what is wrong with it."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from flatjax.errors import InputError


@contextmanager
def reading(file: Path, what: str) -> Iterator[None]:
    """The door of all readers: whatever goes wrong with a file becomes one line.

    Args:
        file: that is read.
        what: it is expected to be, as "an HDF5 file".

    Raises:
        InputError: the file cannot be opened, or any error came of it that is not one already.
    """
    check_file(file)
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # no library lists what it raises of damaged files
        raise InputError(f"{file}: is not {what} or is cut short or damaged ({first_line(error)}); "
                         "download or export it again") from error


def check_file(file: Path) -> int:
    """The size in bytes of a file, which has to be one that may be read."""
    try:
        with file.open("rb") as stream:
            return stream.seek(0, 2)
    except OSError as error:
        raise InputError(f"{file}: cannot be opened ({error.strerror}); check that it is a file "
                         "that you may read") from error


def finite(file: Path, field: str, index: int, values: np.ndarray,
           dtype: DTypeLike = np.complex64) -> np.ndarray:
    """One slice of a field as `dtype`, refused with NaN, infinite or too large values."""
    with np.errstate(all="ignore"):
        out = np.ascontiguousarray(values, dtype)
        total = out.sum()  # not finite if any value is not, and takes no memory
    if not np.isfinite(total) and not np.isfinite(out).all():
        bad = out.size - np.count_nonzero(np.isfinite(out))
        raise InputError(f"{file}: slice {index} of {field} has {bad} values that are NaN or "
                         "infinite, expected finite numbers; download it again or remove it")
    return out


def binary_mask(file: Path, field: str, values: np.ndarray) -> np.ndarray:
    """A sampling mask `[kx]` or `[ky, kx]`, of 0 and 1, as `[ky or 1, kx]` float32."""
    real = values.dtype.kind in "biuf"
    if not real or not np.isin(values, (0, 1)).all() or not values.any():
        found = f"from {float(values.min()):g} to {float(values.max()):g}" if real else values.dtype
        raise InputError(f"{file}: {field} has values {found}, expected 0 and 1, and 1 somewhere; "
                         "threshold it")
    return np.atleast_2d(values).astype(np.float32)


def first_signal(file: Path, slices: Iterable[tuple[int, np.ndarray]]) -> tuple[int, np.ndarray]:
    """The first of `(index, k-space)` that is not all zero: empty slices at the ends are usual."""
    for index, kspace in slices:
        if kspace.any():
            return index, kspace
    raise InputError(f"{file}: kspace is zero in every slice, expected measured data; download or "
                     "export it again")


def middle_first(count: int) -> list[int]:
    """The indices of slices from the middle one to the ends."""
    return sorted(range(count), key=lambda index: abs(index - count // 2))


def first_line(error: BaseException) -> str:
    """The first line of what an exception says, or its name."""
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
