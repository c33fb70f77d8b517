"""Sections of a config, made from the signatures of the functions that they are handed to."""

import inspect
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from ml_collections import ConfigDict, config_dict

from flatjax.errors import InputError
from flatjax.methods.base import MethodSpec, Part


def unknown(kind: str, name: str, known: Iterable[str]) -> InputError:
    """The error for a name that is not known, with the nearest one that is."""
    near = get_close_matches(name, list(known), 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return InputError(f"{kind} is {name!r}, expected one of {', '.join(known)}{hint}")


def defaults(function: Callable[..., Any], without: Collection[str] = (),
             **overrides: Any) -> ConfigDict:
    """The keyword arguments of a function with their defaults, as a config.

    Args:
        function: keyword arguments with defaults only. One whose default is None is taken for a
            number that may be left open.
        without: arguments that are no part of it.
        **overrides: values other than the defaults.

    Raises:
        InputError: for a name that is no argument, with the nearest one.
    """
    parameters = {name: parameter for name, parameter
                  in inspect.signature(function).parameters.items() if name not in without}
    for name in overrides:
        if name not in parameters:
            raise unknown(f"an option of {_title(function)}", name, parameters)
    config = ConfigDict()
    for name, parameter in parameters.items():
        none = parameter.default is None
        config[name] = config_dict.placeholder(float) if none else parameter.default
    for name, value in overrides.items():
        if value is None and parameters[name].default is not None:
            raise InputError(f"{name} is None, expected a value such as "
                             f"{parameters[name].default!r}")
    with config.ignore_type():  # where a range may take the place of a number
        config.update({name: value for name, value in overrides.items()
                       if isinstance(value, tuple) and "tuple" in str(parameters[name].annotation)})
    config.update(overrides)
    return config


def _title(function: Callable[..., Any]) -> str:
    function = getattr(function, "func", function)  # of a partial one
    return f"{function.__module__}.{function.__name__}"


def named(kind: str, name: str, table: Mapping[str, Any]) -> Any:
    """The entry of a table.

    Raises:
        InputError: if there is none, with the nearest name.
    """
    if name not in table:
        raise unknown(kind, name, sorted(table))
    return table[name]


def part_section(title: str, part: Part, overrides: Mapping[str, Any]) -> ConfigDict:
    """The section of a part: its `name` if there are several kinds, and the options of that one.

    Args:
        title: of the section.
        part: as in `MethodSpec.parts`.
        overrides: values other than the defaults.

    Raises:
        InputError: for an unknown kind or option.
    """
    if callable(part):
        return defaults(part, **overrides)
    options = dict(overrides)
    name = options.pop("name", next(iter(part)))
    config = defaults(named(f"{title}.name", name, part), **options)
    config.name = name
    return config


def method_section(name: str, spec: MethodSpec, without: Collection[str],
                   overrides: Mapping[str, Any]) -> ConfigDict:
    """The section of a method: its options, and a section for each of its parts.

    Args:
        name: of the method.
        spec: of the method.
        without: arguments that are no options of it.
        overrides: values other than the defaults; of a part, a dict of them.

    Raises:
        InputError: for an unknown kind or option, or a part that is no dict.
    """
    for key in overrides:
        if key not in (known := [k for k in inspect.signature(spec.make).parameters
                                 if k not in without]):
            raise unknown(f"an option of method {name}", key, known)
        if key in spec.parts and not isinstance(overrides[key], Mapping | ConfigDict):
            raise InputError(f"method.{key} is {overrides[key]!r}, expected a dict of its options")
    config = defaults(spec.make, {*spec.parts, *without},
                      **{key: overrides[key] for key in overrides if key not in spec.parts})
    config.name = name
    for key, part in spec.parts.items():
        config[key] = part_section(f"method.{key}", part, overrides.get(key, {}))
    return config


def carried(old: Mapping[str, Any], spec: MethodSpec, fresh: ConfigDict) -> dict[str, Any]:
    """What another method's section gives the fresh one of `spec`: the options they share."""
    shared: dict[str, Any] = {}
    for key, value in old.items():
        if key == "name" or key not in fresh:
            continue
        if key in spec.parts:
            part, kind = spec.parts[key], value.get("name")
            name = {"name": kind} if not callable(part) and kind in part else {}
            known = part_section(key, part, name)
            shared[key] = name | {k: v for k, v in value.items() if k in known and k != "name"}
        else:
            shared[key] = value
    return shared


def build_part(title: str, part: Part, options: Mapping[str, Any]) -> Any:
    """The value that a part's section describes."""
    options = dict(options)
    function = part if callable(part) else named(f"{title}.name", options.pop("name"), part)
    return function(**options)


def tuples(options: Mapping[str, Any]) -> dict[str, Any]:
    """A section as a dict, with lists, as JSON has them, made tuples."""
    return {key: tuple(value) if isinstance(value, list) else
            tuples(value) if isinstance(value, Mapping | ConfigDict) else value
            for key, value in options.items()}


def flattened(section: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of a section and of those in it, by their dotted names."""
    out: dict[str, Any] = {}
    for key, value in section.items():
        if isinstance(value, Mapping | ConfigDict):
            out |= flattened(value, f"{prefix}{key}.")
        else:
            out[prefix + key] = value
    return out


def check_finite(name: str, section: Mapping[str, Any]) -> None:
    """Refuse a section with a number that is not finite.

    Raises:
        InputError: naming it.
    """
    for key, value in flattened(section, f"{name}.").items():
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"{key} is {value}, expected a finite number")
