"""The exceptions that the command-line programs turn into one line, and checks that raise them."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any


class InputError(ValueError):
    """A file, configuration or argument that flatjax cannot work with; exit status 2.

    The message says what was found, what was expected and what to do about it.
    """


class NonFiniteError(InputError):
    """A reconstruction that has values that are not finite."""


class BusyError(InputError):
    """Another process holds what was asked for."""


class TrainingError(RuntimeError):
    """Accepted input that training cannot go on with, as a loss that is not finite; status 1."""


class StorageError(OSError):
    """Results cannot be written, as on a full disk; status 1. What was written before is intact."""


class Terminated(KeyboardInterrupt):
    """SIGTERM asked the process to stop, as schedulers do before they kill it, or Ctrl-C did.

    Its `status` is that of the process: 128 and the number of the signal.
    """

    def __init__(self, message: str, status: int = 143) -> None:
        super().__init__(message)
        self.status = status


def unknown(what: str, value: Any, known: Iterable[Any]) -> InputError:
    """The error for a value that is none of those known, with the nearest one that is."""
    names = [str(one) for one in known]
    near = get_close_matches(str(value), names, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return InputError(f"{what} is {value!r}, expected one of {', '.join(names)}{hint}")


def check_choice(name: str, value: Any, choices: Iterable[Any]) -> None:
    """Refuse a value that is not among the choices, by an `InputError` that names both."""
    if value not in choices:
        raise unknown(name, value, choices)


def check_at_least(least: float, **values: float) -> None:
    """Refuse values, given by their names, below `least`, by an `InputError`."""
    for name, value in values.items():
        if not value >= least:
            raise InputError(f"{name} is {value}, expected at least {least}")


def check_above(bound: float, **values: float) -> None:
    """Refuse values, given by their names, that are not above `bound`, by an `InputError`."""
    for name, value in values.items():
        if not value > bound:
            raise InputError(f"{name} is {value}, expected above {bound}")
