"""Methods, data sets and solvers by their names, those of other packages too."""

import inspect
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from flatjax.errors import InputError, unknown

T = TypeVar("T")


class Registry(dict[str, T]):
    """Entries by their names. A name that is no key brings an entry from outside of flatjax.

    It is "package.module:NAME", for Python to import from the current folder or where it is
    installed, or the name of an entry point that a package has in the group.
    """

    def __init__(self, what: str, group: str, entries: Mapping[str, T], *, kind: type[T] | None,
                 made: type | None = None) -> None:
        """Those of flatjax.

        Args:
            what: the option that has the name, for messages.
            group: of entry points, as "flatjax.methods".
            entries: by name.
            kind: type of the entries; None for functions.
            made: what functions return: annotated so, one may be an entry as `kind(function)`.
        """
        super().__init__(entries)
        self._what, self._group, self._kind, self._made = what, group, kind, made

    def __missing__(self, name: str) -> T:
        return self.outside(name, sorted(self))

    def outside(self, name: str, known: Iterable[str]) -> T:
        """The entry of that name in another package; for an `InputError`, those that are known."""
        entries = [*entry_points(group=self._group, name=name)]
        if ":" in name:
            entries = [EntryPoint(name, name, self._group)]
            if "" not in sys.path:  # the current folder, last: it hides nothing that is installed
                sys.path.append("")
        if not entries:
            raise unknown(self._what, name, (*known, "package.module:NAME"))
        try:
            found = entries[0].load()
        except Exception as error:  # of any type: the module's own code runs
            raise InputError(f"{self._what} is {name!r}, which cannot be imported "
                             f"({type(error).__name__}: {error}), expected package.module:NAME; "
                             "start in the folder of that module, or install it") from error
        if self._kind and isinstance(found, self._kind):
            return found
        if self._made and callable(found) and _returned(found) == self._made.__name__:
            return self._kind(found) if self._kind else found
        expected = [f"a {self._kind.__name__}"] if self._kind else []
        if self._made:
            expected.append(f"a function that is annotated to return a {self._made.__name__}")
        raise InputError(f"{self._what} is {name!r}, a {type(found).__name__}, expected "
                         f"{' or '.join(expected)}")


def _returned(function: Any) -> str:
    """The name of the type that a function is annotated to return."""
    try:
        returned = inspect.signature(function).return_annotation
    except (TypeError, ValueError):  # of a built-in function
        return ""
    return getattr(returned, "__name__", str(returned)).rpartition(".")[2]
