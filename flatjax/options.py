"""Sections of a config, made from the signatures of the functions that they are handed to.

What a section is for is its kind: a function, whose keyword arguments are its options; a
`MethodSpec`, some of whose arguments are sections of their own; or a table of either, whose section
says which by its `name`. A table's first entry is its default.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict, config_dict

from flatjax.errors import InputError, unknown
from flatjax.methods.base import MethodSpec

Function = Callable[..., Any] | MethodSpec
Kind = Function | Mapping[str, Function]
SHARED = ("combine",)  # not in a section but in the whole config, for every function that asks


def section(title: str, kind: Kind, options: Mapping[str, Any],
            old: Mapping[str, Any] = {}) -> ConfigDict:
    """A section: all options with their defaults. A default of None stands for an open number.

    Args:
        title: dotted name of the section, for messages.
        kind: what it is for.
        options: values other than the defaults, and the `name` if `kind` is a table; a dict for an
            option that is a section itself.
        old: another section, whose options are taken where this one has them, too.

    Raises:
        InputError: for an unknown name or option, with the nearest one; for a value that is None
            or a section that is no dict.
    """
    options = dict(options)
    if isinstance(kind, Mapping):
        default = old.get("name") if old.get("name") in kind else next(iter(kind))
        name = options.pop("name", default)
        config = section(title, _entry(title, kind, name), options, old)
        config.name = name
        return config
    spec = _spec(kind)
    parameters, parts = _parameters(spec), spec.parts
    options = {name: value for name, value in old.items()
               if name in parameters and name not in parts} | options
    for name, value in options.items():
        if name not in parameters:
            raise unknown(f"an option of {title}", name, parameters)
        if name in parts and not isinstance(value, Mapping | ConfigDict):
            raise InputError(f"{title}.{name} is {value!r}, expected a dict of its options")
        if value is None and parameters[name].default is not None:
            raise InputError(f"{title}.{name} is None, expected a value such as "
                             f"{parameters[name].default!r}")
    config = ConfigDict()
    for name, parameter in parameters.items():
        if name in parts:
            config[name] = section(f"{title}.{name}", parts[name], options.pop(name, {}),
                                   old.get(name, {}))
        elif parameter.default is parameter.empty:
            raise InputError(f"{title}.{name} has no default, expected one in the function's "
                             "signature, or in a MethodSpec the part that it is made by")
        else:
            open_ = parameter.default is None
            config[name] = config_dict.placeholder(float) if open_ else parameter.default
    with config.ignore_type():  # where a range may take the place of a number
        config.update({name: value for name, value in options.items()
                       if isinstance(value, tuple) and "tuple" in str(parameters[name].annotation)})
    config.update(options)
    return config


def build(title: str, kind: Kind, options: Mapping[str, Any], shared: Mapping[str, Any]) -> Any:
    """What a section, `options`, describes: its function's result, its own sections built before.

    `title` and `kind` are as for `section`; `shared` has the values of `SHARED`.
    """
    options = tuples(options)
    if isinstance(kind, Mapping):
        return build(title, _entry(title, kind, options.pop("name")), options, shared)
    spec = _spec(kind)
    for key, part in spec.parts.items():
        options[key] = build(f"{title}.{key}", part, options[key], shared)
    asked = inspect.signature(spec.make).parameters
    return spec.make(**options, **{key: shared[key] for key in SHARED if key in asked})


def _entry(title: str, table: Mapping[str, Any], name: str) -> Any:
    try:
        return table[name]  # of a `Registry`, perhaps from outside
    except KeyError:
        raise unknown(f"{title}.name", name, sorted(table)) from None


def _spec(kind: Function) -> MethodSpec:
    return kind if isinstance(kind, MethodSpec) else MethodSpec(kind)


def _parameters(spec: MethodSpec) -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(spec.make).parameters
    return {name: one for name, one in parameters.items() if name not in SHARED}


def tuples(options: Mapping[str, Any]) -> dict[str, Any]:
    """A section as a dict, with lists, as JSON has them, made tuples."""
    return {key: tuple(value) if isinstance(value, list) else
            tuples(value) if isinstance(value, Mapping | ConfigDict) else value
            for key, value in options.items()}


def flattened(section: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a section and of those in it, by their dotted names."""
    return flatten_dict(tuples(section), sep=".")
