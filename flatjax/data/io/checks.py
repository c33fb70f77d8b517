"""What every reader of files does: open one, and say in one line what is wrong with it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from flatjax.errors import InputError


@contextmanager
def reading(file: Path) -> Iterator[None]:
    """The door of all readers: whatever goes wrong with a file becomes one line that names it.

    Raises:
        InputError: the file cannot be opened, or anything was raised while it was read.
    """
    check_file(file)
    try:
        yield
    except InputError as error:
        if str(error).startswith(f"{file}: "):  # by a door within this one
            raise
        raise InputError(f"{file}: {error}") from error
    except Exception as error:  # no library lists what it raises of damaged files
        said, *_ = str(error).splitlines() or [type(error).__name__]
        raise InputError(f"{file}: is cut short or damaged, or of another format ({said}); "
                         "download or export it again") from error


def check_file(file: Path) -> int:
    """The size in bytes of a file, which has to be one that may be read."""
    try:
        with file.open("rb") as stream:
            return stream.seek(0, 2)
    except OSError as error:
        raise InputError(f"{file}: cannot be opened ({error.strerror}); check that it is a file "
                         "that you may read") from error


def finite(field: str, index: int, values: np.ndarray,
           dtype: DTypeLike = np.complex64) -> np.ndarray:
    """One slice of a field as `dtype`, refused with NaN, infinite or too large values."""
    with np.errstate(all="ignore"):
        out = np.ascontiguousarray(values, dtype)
        total = out.sum()  # not finite if any value is not, and takes no memory
    if not np.isfinite(total) and not np.isfinite(out).all():
        bad = out.size - np.count_nonzero(np.isfinite(out))
        raise InputError(f"slice {index} of {field} has {bad} values that are NaN or infinite, "
                         "expected finite numbers; download it again or remove it")
    return out


def binary_mask(field: str, values: np.ndarray) -> np.ndarray:
    """A sampling mask `[kx]` or `[ky, kx]`, of 0 and 1, as `[ky or 1, kx]` float32."""
    real = values.dtype.kind in "biuf"
    if not real or not np.isin(values, (0, 1)).all() or not values.any():
        found = f"from {float(values.min()):g} to {float(values.max()):g}" if real else values.dtype
        raise InputError(f"{field} has values {found}, expected 0 and 1, with some 1; threshold it")
    return np.atleast_2d(values).astype(np.float32)


def first_signal(count: int, read: Callable[[int], np.ndarray]) -> tuple[int, np.ndarray]:
    """The slice of k-space nearest the middle that is not all zero, as those at the ends may be."""
    for index in sorted(range(count), key=lambda index: abs(index - count // 2)):
        kspace = read(index)
        if kspace.any():
            return index, kspace
    raise InputError("kspace is zero in every slice, expected measured data; export it again")
