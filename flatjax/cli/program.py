"""The program `flatjax`: which subcommand, its flags, its help, and one line for an error."""

import difflib
import os
import platform
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

from absl import flags, logging

from flatjax.cli.commands import COMMANDS, Command, Option
from flatjax.errors import InputError, StorageError, TrainingError
from flatjax.files import make_folder
from flatjax.training.interruption import Terminated

_CACHE = Option("compilation-cache", "DIR", "compiled programs are kept there for the next start; "
                "~/.cache/flatjax/xla by default, or the environment variable "
                "JAX_COMPILATION_CACHE_DIR; empty (--compilation-cache=) to keep none")
_HELP = Option("help", "", "show this text", "bool")
_KEYS = ("--config.KEY=VALUE", "sets a value of the config, as --config.acquisition.acceleration=8;"
         " --show-config lists all keys with their values, and a misspelt one is refused")


def main(argv: list[str] | None = None) -> None:
    """Run `flatjax SUBCOMMAND ...`; expected errors become one line and a status.

    Args:
        argv: arguments after the program's name, by default those of the process.
    """
    name, *rest = (sys.argv[1:] if argv is None else argv) or [""]
    if name in COMMANDS:
        _guarded(f"flatjax {name}", lambda: _run(name, rest))
    elif name in ("", "-h", "--help"):
        print(_overview(), end="")
        raise SystemExit(0 if name else 2)
    else:
        near = difflib.get_close_matches(name, COMMANDS, 1)
        _fail("flatjax", f"no subcommand {name!r}, expected one of {', '.join(COMMANDS)}"
              + f"; did you mean {near[0]}?" * bool(near), 2)


def evaluate_script() -> None:
    """Run `evaluate.py`: `flatjax evaluate`, or the subcommand that its options belong to.

    `--input` asks for `reconstruct`, `--pack` and `--export` for those, several runs or
    `--accelerations` for `compare`.
    """
    def chosen() -> None:
        argv = sys.argv[1:]
        names = "input", "pack", "export", "accelerations", "workdir", "pretrained"
        values, _ = _parse([Option(name, "", "", "multi_string") for name in names], argv, True)
        several = len(values.workdir + values.pretrained) > 1 or values.accelerations
        asked = {command: words for command, words, given in (
            ("reconstruct", "--input", values.input), ("pack", "--pack", values.pack),
            ("export", "--export", values.export),
            ("compare", "several runs or --accelerations", several)) if given}
        if len(asked) > 1:
            raise InputError(f"{' and '.join(asked.values())} were given, expected one of them at "
                             "a time")
        main([*asked, *argv] if asked else ["evaluate", *argv])

    _guarded("evaluate.py", chosen)


def _run(name: str, argv: list[str]) -> None:
    command = COMMANDS[name]
    overrides = [a for a in argv if a.startswith(("--config.", "--noconfig."))]
    rest = [a for a in argv if a not in overrides]
    options = [*command.options, _CACHE, _HELP]
    values, paths = _parse(options, rest)
    if values.help or not argv:
        print(_help(name, command, options), end="")
        raise SystemExit(0 if argv else 2)
    stray = overrides if not command.configurable else [] if command.paths else paths
    if stray:
        raise InputError(f"unexpected argument {stray[0]!r}; options are written --name=value "
                         "(see --help)")
    logging.set_verbosity(logging.ERROR)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    _keep_compiled(values["compilation-cache"].value)
    command.run(values, overrides, paths)


def _parse(options: list[Option], argv: list[str], known_only: bool = False
           ) -> tuple[flags.FlagValues, list[str]]:
    """The values of options, and the arguments that are not among them.

    Raises:
        InputError: for another option, unless `known_only`; for a value missing or of no use.
    """
    values = flags.FlagValues()
    values.set_gnu_getopt()  # options may follow paths
    for one in options:
        one.define(values)
    try:
        return values, values(["flatjax", *argv], known_only)[1:]
    except (flags.Error, ValueError) as error:
        raise InputError(f"{error} (see --help)") from error


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(["usage: flatjax SUBCOMMAND ...", "", *lines, "",
                      "flatjax SUBCOMMAND --help lists its options.", ""])


def _help(name: str, command: Command, options: list[Option]) -> str:
    def indented(text: str) -> str:
        return textwrap.fill(text, 96, initial_indent=" " * 6, subsequent_indent=" " * 6)

    lines = [f"usage: flatjax {name} {command.usage}", "",
             textwrap.fill(f"{command.summary[0].upper()}{command.summary[1:]}."), ""]
    for head, text in [*([_KEYS] if command.configurable else []), *(
            (f"--{one.name}{'=' * bool(one.value)}{one.value}", one.text) for one in options)]:
        lines += [f"  {head}", indented(text)]
    return "\n".join([*lines, ""])


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


def _keep_compiled(folder: str | None) -> None:
    """Turn JAX's persistent compilation cache on; None for the folder of `compilation_cache`."""
    import jax
    folder = compilation_cache() if folder is None else folder
    if folder and "://" not in folder:  # a bucket's address is JAX's own affair
        folder = str(make_folder(folder))
    jax.config.update("jax_compilation_cache_dir", folder or None)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _guarded(program: str, run: Callable[[], None]) -> None:
    """Run a command; expected errors become one line and a status."""
    try:
        run()
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
