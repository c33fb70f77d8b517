"""The program `flatjax`: which subcommand, its options, its help, and one line for an error."""

import os
import platform
import sys
import warnings
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import NoReturn

from absl import logging

from flatjax.cli.commands import COMMANDS
from flatjax.errors import InputError, StorageError, Terminated, TrainingError
from flatjax.files import make_folder

_CACHE = ("folder that keeps compiled programs for the next start; default: the environment "
          "variable JAX_COMPILATION_CACHE_DIR, or else ~/.cache/flatjax/xla. An empty value "
          "(--compilation-cache=) disables the cache")


def main(argv: list[str] | None = None) -> None:
    """Run `flatjax SUBCOMMAND ...`; expected errors become one line and a status.

    Args:
        argv: arguments after the program's name, by default those of the process.
    """
    name, *rest = (sys.argv[1:] if argv is None else argv) or [""]
    if name in ("", "-h", "--help"):
        print(_overview(), end="")
        raise SystemExit(0 if name else 2)
    program = f"flatjax {name}" if name in COMMANDS else "flatjax"
    warnings.formatwarning = lambda message, *_, **__: (
        f"{program}: warning: {' '.join(str(message).split())}\n")
    try:
        _run(name, rest)
    except InputError as error:
        _fail(program, error, 2)
    except (TrainingError, StorageError) as error:
        _fail(program, error, 1)
    except Terminated as error:
        _fail(program, error, 143)
    except KeyboardInterrupt:
        _fail(program, "interrupted; the same command goes on from the last checkpoint", 130)


def _run(name: str, argv: list[str]) -> None:
    if name not in COMMANDS:
        raise InputError(f"no subcommand {name!r}, expected one of {', '.join(COMMANDS)}"
                         + _nearest(name, COMMANDS))
    command = COMMANDS[name]
    parser = _Parser(prog=f"flatjax {name}", usage=f"%(prog)s {command.usage}", allow_abbrev=False,
                     description=f"{command.summary[0].upper()}{command.summary[1:]}.")
    options = {f"--{option}": arguments for option, arguments in command.options.items()}
    for option, arguments in options.items():
        parser.add_argument(option, **arguments)
    parser.add_argument("--compilation-cache", metavar="DIR", help=_CACHE)
    if not argv:
        parser.print_help()
        raise SystemExit(2)
    prefixes = ("--config.", "--noconfig.") if command.configurable else ()
    overrides = [word for word in argv if word.startswith(prefixes)]
    values, paths = parser.parse_known_args([word for word in argv if word not in overrides],
                                            Namespace(overrides=overrides))
    stray = [word for word in paths if word.startswith("-") or not command.paths]
    if stray:
        raise InputError(f"unexpected argument {stray[0]!r}{_nearest(stray[0], options)}; options "
                         "are written --name=value (see --help)")
    values.paths = paths
    logging.set_verbosity(logging.ERROR)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    _keep_compiled(values.compilation_cache)
    command.run(values)


def _nearest(word: str, known: Iterable[str]) -> str:
    near = get_close_matches(word.partition("=")[0], known, 1)
    return f"; did you mean {near[0]}?" if near else ""


class _Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Leave the one line and the status to `main`."""
        raise InputError(f"{message} (see --help)")


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(["usage: flatjax SUBCOMMAND ...", "", *lines, "",
                      "flatjax SUBCOMMAND --help lists the options of a subcommand.", ""])


def _keep_compiled(folder: str | None) -> None:
    """Have JAX keep compiled programs in a folder: by default ours, if that can be written."""
    import jax
    if folder is None:
        folder = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if folder is None:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        with suppress(InputError):  # by machine: a program belongs to the processor it is made for
            folder = str(make_folder(home / "flatjax" / "xla" / platform.node()))
    elif folder and "://" not in folder:  # a bucket's address is JAX's own affair
        folder = str(make_folder(folder))
    jax.config.update("jax_compilation_cache_dir", folder or None)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _fail(program: str, message: object, status: int) -> None:
    print(f"{program}: error: {' '.join(str(message).split())}", file=sys.stderr)
    raise SystemExit(status)
