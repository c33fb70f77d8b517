"""Config files, of a run or of a grid of runs, and values set on the command line."""

import re
import runpy
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from flatjax import config as configuration
from flatjax.errors import InputError
from flatjax.experiments.grid import Grid
from flatjax.options import flattened

_NAMED = re.compile(r"--config\.((?:\w+\.)*\w+)\.name=(.*)")


def load_config_file(name: str) -> Any:
    """What a file's `get_config()` returns: the config of a run, or a grid of several.

    Args:
        name: path of a Python file, or the name of a config that is installed with flatjax;
            after a colon, an argument for its `get_config`.

    Raises:
        InputError: if there is no such file, or it gives no config.
    """
    name, colon, argument = name.partition(":")
    path = Path(name)
    if not path.is_file():
        shipped = {p.stem: p for p in sorted(
            Path(str(resources.files("flatjax.configs"))).glob("[!_]*.py"))}
        if name not in shipped:
            raise InputError(f"no config file {name}; expected the path of a Python file with a "
                             f"get_config(), or one of {', '.join(shipped)}")
        path = shipped[name]
    try:
        config = runpy.run_path(str(path))["get_config"](*[argument] * bool(colon))
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"config file {path} failed: {type(error).__name__}: {error}") from error
    if not isinstance(config, ConfigDict | Grid):
        raise InputError(f"get_config() of {path} returned a {type(config).__name__}, expected an "
                         "ml_collections.ConfigDict, built with flatjax.config.experiment, or a "
                         "flatjax.experiments.grid.Grid")
    missing = [key for key in configuration.experiment()
               if isinstance(config, ConfigDict) and key not in config]
    if missing:
        raise InputError(f"get_config() of {path} returned a config without {', '.join(missing)}; "
                         "build it with flatjax.config.experiment")
    return config


def override(config: ConfigDict, argv: list[str]) -> ConfigDict:
    """The config with `--config.key=value` arguments applied.

    Another name of the method, of a part of it or of the data set brings that one's options,
    keeping those they share.

    Raises:
        InputError: for a key that the config does not have, or a value of another type.
    """
    names = {match[1]: match[2] for match in map(_NAMED.fullmatch, argv) if match}
    configuration.with_names(config, names)
    _check_keys(argv, list(flattened(config)))
    argv = ["flatjax", *argv]
    values = flags.FlagValues()
    try:
        holder = config_flags.DEFINE_config_dict("config", config, flag_values=values,
                                                 sys_argv=argv)
        values(argv)
    except (flags.Error, AttributeError, LookupError, ValueError, TypeError) as error:
        message = error
        while isinstance(message, Exception) and message.args:
            message = message.args[0]
        raise InputError(f"bad config option: {message}") from error
    return holder.value


def _check_keys(argv: list[str], known: list[str]) -> None:
    """Refuse keys that are not among those known nor sections of them, with the nearest one."""
    for word in argv:
        key = re.split(r"[=\[]", word.partition(".")[2])[0]
        if not any(one == key or one.startswith(f"{key}.") for one in known):
            ends = [one.rpartition(".")[2] for one in known]
            end = get_close_matches(key.rpartition(".")[2], ends, 1, 0.55)
            near = get_close_matches(key, known, 1, 0.8) or [
                one for one, own in zip(known, ends, strict=True) if own in end]
            hint = f"; did you mean --config.{' or --config.'.join(near)}?" if near else ""
            raise InputError(f"the config has no key {key!r}, expected one that --show-config "
                             f"lists{hint}")
