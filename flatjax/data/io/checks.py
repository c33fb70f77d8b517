"""What every reader of files checks before it trusts one."""

from pathlib import Path

import numpy as np

from flatjax.errors import InputError


def check_file(file: Path) -> int:
    """The size in bytes of a file that may be read.

    Raises:
        InputError: it does not exist, is a folder or may not be read.
    """
    try:
        with file.open("rb") as stream:
            return stream.seek(0, 2)
    except OSError as error:
        raise InputError(f"{file}: cannot be opened ({error.strerror}); check that it is a file "
                         "that you may read") from error


def check_finite(file: Path, name: str, index: int, values: np.ndarray) -> None:
    """Refuse a slice of the field `name` with a NaN or infinite value."""
    with np.errstate(all="ignore"):
        total = values.sum()  # not finite if any value is not, and takes no memory
    if not np.isfinite(total) and not np.isfinite(values).all():
        bad = values.size - np.count_nonzero(np.isfinite(values))
        raise InputError(f"{file}: slice {index} of {name} has {bad} values that are NaN or "
                         "infinite, expected finite numbers; download it again or remove it")
