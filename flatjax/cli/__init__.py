"""The command-line programs: flags, and one line for whatever is wrong with the input."""

import importlib.util
import os
import platform
import sys
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jax
from absl import flags, logging
from ml_collections import ConfigDict, config_flags

from flatjax import config as configuration
from flatjax.errors import InputError, StorageError, TrainingError
from flatjax.files import make_folder
from flatjax.training.interruption import Terminated

CACHE_USAGE = """
Compiled programs are kept for the next start in ~/.cache/flatjax/xla, or:

  --compilation-cache  another folder, or nothing (--compilation-cache=) to keep none; the
                       environment variable JAX_COMPILATION_CACHE_DIR says the same
"""
TRAIN_USAGE = """\
Train a reconstruction model; the same command resumes it.

  train.py --config=configs/demo.py --workdir=DIR [--config.key=value ...]

  --config   a config file, or the name of one that flatjax ships, such as demo;
             FILE:NAME hands NAME to its get_config
  --workdir  folder of the run: config, metrics, checkpoints
  --distributed  join the other processes that run this command (docs/hosts.md)

A config that is a grid of runs, such as ablate:flat_parts, is trained, evaluated and tabled:

  --results  folder of scores, table and figure; DIR/results by default
  --dry-run  print the runs, their parameters and the time they should take
""" + CACHE_USAGE
EVALUATE_USAGE = """\
Score a trained model on the test sets of its data.

  evaluate.py --workdir=DIR [--output=DIR2] [--config.key=value ...]

  --workdir  folder of a run made by train.py
  --output   folder for metrics, reconstructions and figures; DIR/eval by default
  --export   instead, write the reconstruction with its weights to a file (docs/export.md)
  --config.* replaces values of the run's own config, as --config.acquisition.acceleration=8

Files without targets are reconstructed, as NAME.h5, NAME.nii and NAME.png:

  evaluate.py --workdir=DIR --input=PATH [--input=PATH ...] --output=DIR2

  --input    file or folder of k-space: .npy, .npz, BART .cfl, fastMRI and ISMRMRD .h5; or a
             magnitude volume, whose acquisition is simulated as --config.acquisition says
  --output   DIR/reconstructions by default; needed with --pretrained
  --mask     .npy or .npz of the sampling mask, where it is not in the data
  --maps     .npy, .npz or .cfl of coil sensitivities, instead of those by ESPIRiT
  --keep-going  leave broken files out, with a line for each, and exit with status 2 at the end

Several runs are compared on the same slices, with the first, in one table and one figure:

  evaluate.py --workdir=A --workdir=B ... --output=DIR [--accelerations=4,8,12]

  --accelerations  evaluate all of them at each of these

A model that is shipped, or was packed, takes the place of a workdir:

  evaluate.py --pretrained=brain --output=DIR [--config.key=value ...]
  evaluate.py --workdir=DIR --pack=FOLDER

  --pretrained  name of a shipped model, or a folder made by --pack
  --pack        write the weights in half precision, their config, scores and model card there
""" + CACHE_USAGE


LOOK_USAGE = """\
List what files of k-space and volumes hold, and draw a slice of each kind.

  flatjax-look PATH [PATH ...] [--output=DIR]

  PATH      file, or folder that is searched with all below it: .npy, .npz, BART .cfl, fastMRI and
            ISMRMRD .h5, NIfTI, NRRD, MINC
  --output  folder for the pictures; look by default
"""


def train_main() -> None:
    """The program `train.py`, also installed as `flatjax-train`."""
    def main(argv: list[str]) -> None:
        path, argv = _take(argv, "config")
        workdir, argv = _take(argv, "workdir")
        options = _join(argv)  # first of all that asks for devices, as a config's imports do
        config = load_config_file(path)
        if isinstance(config, ConfigDict):
            from flatjax.training.train import train
            train(override(config, options), workdir)
        else:
            _grid(config, workdir, argv)  # which is trained by one process

    _run("train", TRAIN_USAGE, main)


def evaluate_main() -> None:
    """The program `evaluate.py`, also installed as `flatjax-evaluate`."""
    def main(argv: list[str]) -> None:
        from flatjax.evaluation.evaluate import evaluate, load_config
        from flatjax.inference.pretrained import folder, pack
        workdirs, argv = _take_all(argv, "workdir")
        names, argv = _take_all(argv, "pretrained")
        workdirs += [folder(name) for name in names]
        if not workdirs:
            raise InputError("--workdir is missing, expected --workdir=DIR, or --pretrained=NAME "
                             "(see --help)")
        if names and not _take(argv, "export", default="")[0]:
            _take(argv, "output")  # a shipped model's folder is no place for results
        inputs, argv = _take_all(argv, "input")
        if inputs:
            _reconstruct(workdirs, inputs, argv)
            return
        to, argv = _take(argv, "pack", default="")
        accelerations, argv = _take(argv, "accelerations", default="")
        file, argv = _take(argv, "export", default="")
        several = len(workdirs) > 1 or accelerations
        asked = [name for name, given in (
            ("--pack", to), ("--export", file), ("several runs or --accelerations", several))
            if given]
        if len(asked) > 1:
            raise InputError(f"{' and '.join(asked)} were given, expected one of them at a time")
        output, argv = _take(argv, "output", default=None if several else "")
        configs = [override(load_config(workdir), argv) for workdir in workdirs]
        if several:
            from flatjax.evaluation.compare import compare, labels
            compare(dict(zip(labels(workdirs), zip(configs, workdirs, strict=True), strict=True)),
                    output, _numbers(accelerations, "accelerations"))
        elif file:
            from flatjax.inference.export import export_run
            export_run(configs[0], workdirs[0], file)
        elif to:
            pack(configs[0], workdirs[0], to, output or None)
        else:
            evaluate(configs[0], workdirs[0], output or None)

    _run("evaluate", EVALUATE_USAGE, main)


def look_main() -> None:
    """The program `flatjax-look`, or `python -m flatjax.inference.look`."""
    def main(argv: list[str]) -> None:
        from flatjax.inference.look import look
        output, argv = _take(argv, "output", default="look")
        paths = [argument for argument in argv if not argument.startswith("-")]
        if len(paths) < len(argv) or not paths:
            stray = next((a for a in argv if a.startswith("-")), "no path")
            raise InputError(f"{stray}, expected paths and perhaps --output=DIR (see --help)")
        _, errors = look(paths, output)
        if errors:
            raise InputError(f"{len(errors)} broken files, named above")

    _run("look", LOOK_USAGE, main)


def _join(argv: list[str]) -> list[str]:
    """Join other processes if an option says so, and give the arguments without it."""
    from flatjax.runs.hosts import join
    named = [a for a in argv if a.partition("=")[0] == "--distributed"]
    for argument in named[-1:]:
        join(argument.partition("=")[2])
    return [argument for argument in argv if argument not in named]


def _reconstruct(workdirs: Sequence[str | Path], inputs: list[str], argv: list[str]) -> None:
    from flatjax.evaluation.evaluate import load_config
    from flatjax.inference.reconstruct import reconstruct_files
    if len(workdirs) > 1:
        raise InputError(f"{len(workdirs)} workdirs with --input, expected one")
    files = {}
    for name in ("output", "mask", "maps"):
        files[name], argv = _take(argv, name, default="")
    keep_going = "--keep-going" in argv
    argv = [argument for argument in argv if argument != "--keep-going"]
    reconstruct_files(override(load_config(workdirs[0]), argv), workdirs[0], inputs,
                      keep_going=keep_going, **files)


def _grid(grid: Any, workdir: str, argv: list[str]) -> None:
    from flatjax.experiments.grid import describe, run_grid
    results, argv = _take(argv, "results", default="")
    dry = "--dry-run" in argv
    argv = [argument for argument in argv if argument != "--dry-run"]
    grid = grid._replace(runs={name: run._replace(config=override(run.config, argv))
                               for name, run in grid.runs.items()})
    if dry:
        print(describe(grid, workdir, results or None))
    else:
        run_grid(grid, workdir, results or None)


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
        shipped = sorted(p.stem for p in _shipped().glob("[!_]*.py"))
        path = _shipped() / f"{path.stem}.py"
        if name not in shipped:
            raise InputError(f"no config file {name}; expected the path of a Python file with a "
                             f"get_config(), or one of {', '.join(shipped)}")
    try:
        spec = importlib.util.spec_from_file_location(f"_flatjax_config_{path.stem}", path)
        if spec is None or spec.loader is None:
            raise InputError(f"config file {path} is no Python file; expected a name that ends "
                             "with .py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        config = module.get_config(*[argument] * bool(colon))
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"config file {path} failed: {type(error).__name__}: {error}") from error
    from flatjax.experiments.grid import Grid
    if not isinstance(config, ConfigDict | Grid):
        raise InputError(f"get_config() of {path} returned a {type(config).__name__}, expected an "
                         "ml_collections.ConfigDict, built with flatjax.config.experiment, or a "
                         "flatjax.experiments.grid.Grid")
    if isinstance(config, ConfigDict):
        missing = sorted({*configuration.experiment()} - {*config})
        if missing:
            raise InputError(f"get_config() of {path} returned a config without "
                             f"{', '.join(missing)}; build it with flatjax.config.experiment")
    return config


def _shipped() -> Path:
    return Path(str(resources.files("flatjax.configs")))


def override(config: ConfigDict, argv: list[str]) -> ConfigDict:
    """The config with `--config.key=value` arguments applied; other arguments are refused.

    Another name of the method or data set brings that one's options, keeping those they share.

    Raises:
        InputError: for a key that the config does not have, or a value of another type.
    """
    stray = [a for a in argv if not a.startswith(("--config.", "--noconfig."))]
    if stray:
        raise InputError(f"unexpected argument {stray[0]!r}; options are written --name=value "
                         "(see --help)")
    for section in ("method", "data"):
        flag = f"--config.{section}.name="
        for name in [a.removeprefix(flag) for a in argv if a.startswith(flag)][-1:]:
            if name != config[section].name:
                config[section] = configuration.renamed(section, config, name)
    argv = ["flatjax", *argv]
    values = flags.FlagValues()
    try:
        holder = config_flags.DEFINE_config_dict("config", config, flag_values=values,
                                                 sys_argv=argv)
        values(argv)
    except (flags.Error, AttributeError, KeyError, ValueError, TypeError) as error:
        message = error
        while isinstance(message, Exception) and message.args:
            message = message.args[0]
        raise InputError(f"bad config option: {message}") from error
    return holder.value


def _take(argv: list[str], name: str, default: str | None = None) -> tuple[str, list[str]]:
    """The value of `--name=value` or `--name value`, and the arguments without it."""
    values, rest = _take_all(argv, name)
    value = values[-1] if values else default
    if value is None or (value == "" and default is None):
        raise InputError(f"--{name} is missing, expected --{name}=VALUE (see --help)")
    return value, rest


def _take_all(argv: list[str], name: str) -> tuple[list[str], list[str]]:
    """As `_take`, all values of an option that may be given several times."""
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


def _numbers(text: str, name: str) -> list[float]:
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
    folder, argv = _take(argv, "compilation-cache", default=compilation_cache())
    if folder and "://" not in folder:  # a bucket's address is JAX's own affair
        folder = str(make_folder(folder))
    jax.config.update("jax_compilation_cache_dir", folder or None)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    return argv


def _run(program: str, usage: str, main: Callable[[list[str]], None]) -> None:
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
