"""What every reader of files does: open one, and say in one line what is wrong with it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from flatjax.errors import InputError
from flatjax.mri.sampling import calibration_size, has_gaps

_ROUNDING = 1e-6  # of the largest sample: below it lies what transforms leave of a zero
_CONTRADICTS = 0.01  # of the points, both left out and missing


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


def check_mask(kspace: np.ndarray, found: np.ndarray, mask: np.ndarray) -> None:
    """Refuse a mask that is shifted, transposed or another scan's, by an `InputError`.

    A mask may leave out samples, to undersample data afterwards, if all that it takes are there.
    Ends of k-space that are empty, as those of partial Fourier, need not be.

    Args:
        kspace: a slice, `[coil, ky, kx]`.
        found: where it was sampled, by `find_mask`, `[ky or 1, kx]`.
        mask: what is to be used of it, `[ky or 1, kx]`.
    """
    found, mask = (np.broadcast_to(np.asarray(one, bool), kspace.shape[1:])
                   for one in (found, mask))
    size = np.abs(kspace).max(axis=0)
    left_out = np.count_nonzero((size > _ROUNDING * size.max()) & ~mask)
    missing = mask & ~found
    rows, columns = (lines | has_gaps(lines) for lines in (
        np.asarray(found.any(axis=axis)) for axis in (1, 0)))
    inside = rows[:, None] & columns
    if left_out > _CONTRADICTS * found.sum() \
            and (missing & inside).sum() > _CONTRADICTS * mask.sum():
        raise InputError(
            f"the mask contradicts the data: it is 0 at {left_out} of {found.sum()} samples that "
            f"are not zero, and 1 at {missing.sum()} that are; it is shifted, transposed or of "
            "another scan: leave it out to have it found in the data")
    if min(calibration_size(mask)) < 2 and min(calibration_size(np.fft.fftshift(mask))) >= 4:
        raise InputError("the mask has its fully sampled center at the edge, expected at n // 2; "
                         "move it there with numpy.fft.fftshift(mask)")


def first_signal(count: int, read: Callable[[int], np.ndarray]) -> tuple[int, np.ndarray]:
    """The slice of k-space nearest the middle that is not all zero, as those at the ends may be."""
    for index in sorted(range(count), key=lambda index: abs(index - count // 2)):
        kspace = read(index)
        if kspace.any():
            return index, kspace
    raise InputError("kspace is zero in every slice, expected measured data; export it again")
