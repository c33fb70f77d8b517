"""The program `flatjax`: which subcommand, its options, its help, and one line for an error."""

import atexit
import glob
import os
import platform
import re
import sys
import tempfile
import warnings
from argparse import ArgumentError, ArgumentParser, Namespace
from collections.abc import Iterable
from contextlib import suppress
from difflib import get_close_matches
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from absl import logging

from flatjax import __version__
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
    if name == "--version":
        print(f"flatjax {__version__}")
        return
    if name in ("", "-h", "--help"):
        width = max(map(len, COMMANDS))
        print("usage: flatjax SUBCOMMAND ...", "",
              *(f"  {one:{width}}  {command.summary}" for one, command in COMMANDS.items()),
              "", "flatjax SUBCOMMAND --help lists its options, flatjax --version the version.",
              sep="\n")
        raise SystemExit(0 if name else 2)
    program = f"flatjax {name}" if name in COMMANDS else "flatjax"
    warnings.formatwarning = lambda message, *_, **__: (
        f"{program}: warning: {' '.join(str(message).split())}\n")
    try:
        try:
            _run(name, rest)
        finally:
            sys.stdout.flush()
        return
    except BrokenPipeError:  # whoever reads, as `| head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None  # as a shell calls what SIGPIPE ended
    except InputError as error:
        message, status = str(error), 2
    except ArgumentError as error:
        message, status = f"{error} (see --help)", 2
    except (TrainingError, StorageError) as error:
        message, status = str(error), 1
    except Terminated as error:
        message, status = str(error), error.status
    except KeyboardInterrupt:
        message, status = "interrupted; what was not saved before is lost", 130
    print(f"{program}: error: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(status)


def _run(name: str, argv: list[str]) -> None:
    if name not in COMMANDS:
        raise InputError(f"no subcommand {name!r}, expected one of {', '.join(COMMANDS)}"
                         + _nearest(name, COMMANDS))
    command = COMMANDS[name]
    parser = ArgumentParser(prog=f"flatjax {name}", usage=f"%(prog)s {command.usage}",
                            description=f"{command.summary[0].upper()}{command.summary[1:]}.",
                            allow_abbrev=False, exit_on_error=False)
    for option, arguments in command.options.items():
        parser.add_argument(f"--{option}", **arguments)
    parser.add_argument("--compilation-cache", metavar="DIR", help=_CACHE)
    if not argv:
        parser.print_help()
        raise SystemExit(2)
    prefixes = ("--config.", "--noconfig.") if "show-config" in command.options else ()
    overrides = [word for word in argv if word.startswith(prefixes)]
    values, paths = parser.parse_known_args([word for word in argv if word not in overrides],
                                            Namespace(overrides=overrides))
    stray = [word for word in paths if word.startswith("-") or not command.paths]
    if stray:
        configurable = bool(prefixes)
        keys = ", keys of the config --config.KEY=VALUE" * configurable
        known = [*(f"--{option}" for option in command.options), *["--config"] * configurable]
        raise InputError(f"unexpected argument {stray[0]!r}{_nearest(stray[0], known)}; options "
                         f"are written --name=value{keys} (see --help)")
    values.paths = paths
    if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: for any name of a file
    logging.set_verbosity(logging.ERROR)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ["MPLBACKEND"] = "agg"  # a notebook hands on its own, which need not be there
    _find_home()
    _keep_compiled(values.compilation_cache)
    command.run(values)


def _nearest(word: str, known: Iterable[str]) -> str:
    first, dot, rest = word.partition("=")[0].partition(".")
    near = get_close_matches(first, known, 1)
    return f"; did you mean {near[0]}{dot}{rest}?" if near else ""


def _find_home() -> None:
    """Give a user without a home folder, as in a container, a temporary one: libraries need it."""
    try:
        Path.home()
    except RuntimeError:
        home = tempfile.TemporaryDirectory(prefix="flatjax-")
        atexit.register(home.cleanup)
        os.environ["HOME"] = home.name
        print("flatjax: there is no home folder, so a temporary one is used until the "
              "program ends; set HOME or --compilation-cache=DIR to keep compiled programs",
              file=sys.stderr)


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
    _mend_cache(folder or "")


def _mend_cache(folder: str) -> None:
    """Remove entries that JAX warns of: it never replaces a damaged one. One line for all."""
    show, removed = warnings.showwarning, set()

    def shown(message: Warning | str, *where: Any, **more: Any) -> None:
        found = re.match(r"Error \w+ persistent compilation cache entry for '(.*?)'", str(message))
        if not found:
            show(message, *where, **more)
            return
        for entry in Path(folder).glob(f"{glob.escape(found[1])}-*-cache"):
            with suppress(OSError):
                entry.unlink()
        if not removed:
            print(f"flatjax: compiled programs in {folder} were damaged or could not be written, "
                  "and are compiled anew", file=sys.stderr)
        removed.add(found[1])

    warnings.showwarning = shown
