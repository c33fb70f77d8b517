"""The exceptions that the command-line programs turn into one line."""

from collections.abc import Iterable
from typing import Any


class InputError(ValueError):
    """A file, configuration or argument that flatjax cannot work with.

    The message says what came, what was expected and what to do about it. The command-line
    programs print it as one line and exit with status 2.
    """


class NonFiniteError(InputError):
    """A reconstruction that has values that are not finite."""


class TrainingError(RuntimeError):
    """Training cannot go on, though its input was accepted: the loss is not finite, for one.

    The command-line programs print it as one line and exit with status 1.
    """


class StorageError(OSError):
    """Results cannot be written: the disk is full, for one. What was written before is intact.

    The command-line programs print it as one line and exit with status 1.
    """


def check_choice(name: str, value: Any, choices: Iterable[Any]) -> None:
    """Refuse a value that is not among the choices.

    Raises:
        InputError: naming both.
    """
    if value not in choices:
        raise InputError(f"{name} is {value!r}, expected one of {', '.join(map(str, choices))}")


def check_at_least(least: float, **values: float) -> None:
    """Refuse values, given by their names, below `least`.

    Raises:
        InputError: naming the first one.
    """
    for name, value in values.items():
        if not value >= least:
            raise InputError(f"{name} is {value}, expected at least {least}")


def check_above(bound: float, **values: float) -> None:
    """Refuse values, given by their names, that are not above `bound`.

    Raises:
        InputError: naming the first one.
    """
    for name, value in values.items():
        if not value > bound:
            raise InputError(f"{name} is {value}, expected above {bound}")
