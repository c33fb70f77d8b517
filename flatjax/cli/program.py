"""What all programs share: options, the cache of compiled programs, and one line for an error."""

import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path

import jax
from absl import logging

from flatjax.errors import InputError, StorageError, TrainingError
from flatjax.files import make_folder
from flatjax.training.interruption import Terminated

CACHE_USAGE = """
Compiled programs are kept for the next start in ~/.cache/flatjax/xla, or:

  --compilation-cache  another folder, or nothing (--compilation-cache=) to keep none; the
                       environment variable JAX_COMPILATION_CACHE_DIR says the same
"""


def take(argv: list[str], name: str, default: str | None = None) -> tuple[str, list[str]]:
    """The value of `--name=value` or `--name value`, and the arguments without it."""
    values, rest = take_all(argv, name)
    value = values[-1] if values else default
    if value is None or (value == "" and default is None):
        raise InputError(f"--{name} is missing, expected --{name}=VALUE (see --help)")
    return value, rest


def take_all(argv: list[str], name: str) -> tuple[list[str], list[str]]:
    """As `take`, all values of an option that may be given several times."""
    values, rest, pending = [], [], False
    for argument in argv:
        if pending:
            values.append(argument)
            pending = False
        elif argument == f"--{name}":
            pending = True
        elif argument.startswith(f"--{name}="):
            values.append(argument.partition("=")[2])
        else:
            rest.append(argument)
    if pending:
        raise InputError(f"--{name} is missing, expected --{name}=VALUE (see --help)")
    return values, rest


def numbers(text: str, name: str) -> list[float]:
    """The numbers of an option, separated by commas."""
    try:
        return [float(part) for part in text.split(",") if part]
    except ValueError as error:
        raise InputError(f"--{name} is {text!r}, expected numbers, as --{name}=4,8,12") from error


def compilation_cache() -> str:
    """Folder of compiled programs unless an option names another; empty for none.

    `JAX_COMPILATION_CACHE_DIR`, or one in the user's cache, if that can be written.
    """
    named = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if named is not None:
        return named
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    try:
        # A program belongs to the processor it was compiled for, a home folder to many machines.
        return str(make_folder(Path(home) / "flatjax" / "xla" / platform.node()))
    except InputError:
        return ""


def _keep_compiled(argv: list[str]) -> list[str]:
    """Turn JAX's persistent compilation cache on, and give the arguments without its option."""
    folder, argv = take(argv, "compilation-cache", default=compilation_cache())
    if folder and "://" not in folder:  # a bucket's address is JAX's own affair
        folder = str(make_folder(folder))
    jax.config.update("jax_compilation_cache_dir", folder or None)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    return argv


def run(program: str, usage: str, main: Callable[[list[str]], None]) -> None:
    """Run `main` on the command line; expected errors become one line and a status."""
    argv = sys.argv[1:]
    if not argv or {"-h", "--help"} & set(argv):
        print(usage, end="")
        raise SystemExit(0 if argv else 2)
    logging.set_verbosity(logging.ERROR)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        main(_keep_compiled(argv))
    except InputError as error:
        _fail(program, error, 2)
    except (TrainingError, StorageError) as error:
        _fail(program, error, 1)
    except Terminated as error:
        _fail(program, error, 143)
    except KeyboardInterrupt:
        _fail(program, "interrupted; the same command goes on from the last checkpoint", 130)


def _fail(program: str, message: object, status: int) -> None:
    print(f"{program}: error: {' '.join(str(message).split())}", file=sys.stderr)
    raise SystemExit(status)
