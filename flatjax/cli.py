"""The command-line programs: flags, and one line for whatever is wrong with the input."""

import importlib.util
import os
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path

from absl import flags, logging
from ml_collections import ConfigDict, config_flags

from flatjax import config as configuration
from flatjax.errors import InputError, TrainingError

TRAIN_USAGE = """\
Train a reconstruction model; the same command resumes it.

  train.py --config=configs/demo.py --workdir=DIR [--config.key=value ...]

  --config   a config file, or the name of one that flatjax ships, such as demo
  --workdir  folder of the run: config, metrics, checkpoints
"""
EVALUATE_USAGE = """\
Score a trained model on the test sets of its data.

  evaluate.py --workdir=DIR [--output=DIR2] [--config.key=value ...]

  --workdir  folder of a run made by train.py
  --output   folder for metrics, reconstructions and figures; DIR/eval by default
  --config.* replaces values of the run's own config, as --config.acquisition.acceleration=8
"""


def train_main() -> None:
    """The program `train.py`, also installed as `flatjax-train`."""
    def main(argv: list[str]) -> None:
        path, argv = _take(argv, "config")
        workdir, argv = _take(argv, "workdir")
        config = override(load_config_file(path), argv)
        from flatjax.train import train
        train(config, workdir)

    _run("train", TRAIN_USAGE, main)


def evaluate_main() -> None:
    """The program `evaluate.py`, also installed as `flatjax-evaluate`."""
    def main(argv: list[str]) -> None:
        from flatjax.evaluate import evaluate, load_config
        workdir, argv = _take(argv, "workdir")
        output, argv = _take(argv, "output", default="")
        evaluate(override(load_config(workdir), argv), workdir, output or None)

    _run("evaluate", EVALUATE_USAGE, main)


def load_config_file(name: str) -> ConfigDict:
    """The config that a file's `get_config()` returns.

    Args:
        name: path of a Python file, or the name of a config that is installed with flatjax.

    Raises:
        InputError: if there is no such file, or it gives no config.
    """
    path = Path(name)
    if not path.is_file():
        shipped = sorted(p.stem for p in _shipped().glob("[!_]*.py"))
        path = _shipped() / f"{path.stem}.py"
        if name not in shipped:
            raise InputError(f"no config file {name}; expected the path of a Python file with a "
                             f"get_config(), or one of {', '.join(shipped)}")
    try:
        spec = importlib.util.spec_from_file_location(f"_flatjax_config_{path.stem}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        config = module.get_config()
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"config file {path} failed: {type(error).__name__}: {error}") from error
    if not isinstance(config, ConfigDict):
        raise InputError(f"get_config() of {path} returned a {type(config).__name__}, expected an "
                         "ml_collections.ConfigDict; build it with flatjax.config.experiment")
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
        message = str(error.args[0] if error.args else error)
        raise InputError(f"bad config option: {message}") from error
    return holder.value


def _take(argv: list[str], name: str, default: str | None = None) -> tuple[str, list[str]]:
    """The value of `--name=value` or `--name value`, and the arguments without it."""
    value, rest, pending = default, [], False
    for argument in argv:
        if pending:
            value, pending = argument, False
        elif argument == f"--{name}":
            pending = True
        elif argument.startswith(f"--{name}="):
            value = argument.partition("=")[2]
        else:
            rest.append(argument)
    if pending or value is None or (value == "" and default is None):
        raise InputError(f"--{name} is missing, expected --{name}=VALUE (see --help)")
    return value, rest


def _run(program: str, usage: str, main: Callable[[list[str]], None]) -> None:
    """Run `main` on the command line; expected errors become one line and a status."""
    argv = sys.argv[1:]
    if not argv or {"-h", "--help"} & set(argv):
        print(usage, end="")
        raise SystemExit(0 if argv else 2)
    logging.set_verbosity(logging.ERROR)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        main(argv)
    except InputError as error:
        _fail(program, error, 2)
    except TrainingError as error:
        _fail(program, error, 1)
    except KeyboardInterrupt:
        _fail(program, "interrupted; the same command goes on from the last checkpoint", 130)


def _fail(program: str, message: object, status: int) -> None:
    print(f"{program}: error: {' '.join(str(message).split())}", file=sys.stderr)
    raise SystemExit(status)
