"""The subcommands of `flatjax`: their options, and the functions that they call.

Nothing heavy is imported before a command runs, so that `--help` answers at once.
"""

import math
import shlex
from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from flatjax.errors import InputError


class Command(NamedTuple):
    """A subcommand. One with the option `show-config` also takes `--config.key=value`."""

    run: Callable[[Namespace], None]  # takes options, `overrides` (of the config) and `paths`
    summary: str  # what it does
    usage: str  # its arguments
    options: Mapping[str, Mapping[str, Any]]  # by name, what `ArgumentParser.add_argument` takes
    paths: bool = False  # whether it takes arguments that are no options


def _required(values: Namespace, name: str) -> str:
    value = getattr(values, name)
    if not value:
        raise InputError(f"--{name} is missing, expected --{name}=VALUE (see --help)")
    return value


def _set(config: Any, values: Namespace) -> Any:
    """The config as the command line changes it; `--show-config` ends the program here."""
    from flatjax.experiments.config_file import override
    from flatjax.options import flattened
    config = override(config, values.overrides)
    if values.show_config:
        print("\n".join(f"--config.{key}={value}" for key, value in flattened(config).items()))
        raise SystemExit(0)
    return config


def _train(values: Namespace) -> None:
    name = _required(values, "config")
    workdir = "" if values.show_config else _required(values, "workdir")
    if values.distributed is not None:  # first of all that asks for devices, as configs may
        from flatjax.runs.hosts import join
        join(values.distributed)
    from ml_collections import ConfigDict

    from flatjax.experiments.config_file import load_config_file
    config = load_config_file(name)
    if isinstance(config, ConfigDict):
        from flatjax.training.train import train
        train(_set(config, values), workdir)
        print(f"next: flatjax evaluate --workdir={shlex.quote(workdir)}")
        return
    from flatjax.experiments.run import describe, run_grid
    grid = config._replace(runs={run: one._replace(config=_set(one.config, values))
                                 for run, one in config.runs.items()})
    if values.dry_run:
        print(describe(grid, workdir, values.results))
    else:
        run_grid(grid, workdir, values.results)


def _models(values: Namespace) -> list[tuple[Any, str | Path]]:
    """Config and folder of each run, or packed model, that is named."""
    from flatjax.inference.pretrained import folder
    from flatjax.runs.workdir import load_config
    workdirs = [*values.workdir, *map(folder, values.pretrained)]
    if not workdirs:
        raise InputError("--workdir is missing, expected --workdir=DIR, or --pretrained=NAME "
                         "(see --help)")
    return [(_set(load_config(workdir), values), workdir) for workdir in workdirs]


def _model(values: Namespace) -> tuple[Any, str | Path]:
    """As `_models`, of the only one."""
    if (count := len(values.workdir) + len(values.pretrained)) > 1:
        raise InputError(f"{count} workdirs or models were named, expected one; flatjax compare "
                         "takes several")
    return _models(values)[0]


def _output(values: Namespace) -> str | None:
    """The folder for results; a packed model's own is no place for them."""
    return _required(values, "output") if values.pretrained else values.output


def _evaluate(values: Namespace) -> None:
    config, workdir = _model(values)
    output = _output(values)
    from flatjax.evaluation.evaluate import evaluate
    evaluate(config, workdir, output)


def _reconstruct(values: Namespace) -> None:
    if not (values.workdir or values.pretrained):
        values.pretrained = ["multicoil"]
    config, workdir = _model(values)
    inputs = [*values.paths, *values.input]
    if not inputs:
        raise InputError("no input, expected files or folders of k-space (see --help)")
    if values.keep_weights and not values.adapt:
        raise InputError("--keep-weights without --adapt, expected both: no weights are learned")
    from flatjax.inference.reconstruct import reconstruct_files
    output = values.output or ("reconstructions" if values.pretrained else None)
    undersample = any(word.startswith("--config.acquisition.") for word in values.overrides
                      if not word.startswith("--config.acquisition.noise"))
    reconstruct_files(config, workdir, inputs, output, mask=values.mask or "",
                      maps=values.maps or "", array=values.array or "",
                      axes=values.axes or "", undersample=undersample,
                      keep_going=values.keep_going, adapt_minutes=values.adapt or 0.0,
                      keep_weights=values.keep_weights)


def _compare(values: Namespace) -> None:
    models, output = _models(values), _required(values, "output")
    from flatjax.evaluation.compare import compare, labels
    compare(dict(zip(labels([workdir for _, workdir in models]), models, strict=True)), output,
            values.accelerations)


def _export(values: Namespace) -> None:
    config, workdir = _model(values)
    from flatjax.inference.export import export_run
    export_run(config, workdir, _required(values, "to"))


def _pack(values: Namespace) -> None:
    config, workdir = _model(values)
    from flatjax.inference.pretrained import pack
    pack(config, workdir, _required(values, "to"), _output(values))


def _inspect(values: Namespace) -> None:
    if not values.paths:
        raise InputError("no path, expected files or folders (see --help)")
    from flatjax.inference.inspection import inspect_files
    errors = inspect_files(values.paths, values.output or "inspect", values.array or "",
                           values.axes or "")
    if errors:
        raise InputError(f"{len(errors)} broken files, named above")


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",") if part]
    except ValueError as error:
        raise ArgumentTypeError(f"{text!r}, expected numbers, as --accelerations=4,8,12"
                                ) from error


def _minutes(text: str) -> float:
    try:
        if 0 < (minutes := float(text)) < math.inf:
            return minutes
    except ValueError:
        pass
    raise ArgumentTypeError(f"{text!r}, expected minutes, as --adapt=5; name scans before it")


def _value(metavar: str, text: str, **keywords: Any) -> dict[str, Any]:
    return {"metavar": metavar, "help": text, **keywords}


def _values(metavar: str, text: str) -> dict[str, Any]:
    return _value(metavar, text, action="append", default=[])


def _switch(text: str) -> dict[str, Any]:
    return {"action": "store_true", "help": text}


_SHOW = {"show-config": _switch("list all keys of the config with their values, and exit. "
                                "--config.KEY=VALUE sets a key; an unknown key is an error")}
_MODEL = {
    "workdir": _values("DIR", "folder of a run, written by flatjax train"),
    "pretrained": _values("NAME", "use a packed model instead of a run: the shipped model "
                          "multicoil, or a folder written by flatjax pack"),
    **_SHOW}
_ARRAYS = {
    "array": _value("NAME", "name of the k-space array in a .npz, .mat or plain .h5 file; default: "
                    "kspace"),
    "axes": _value("NAME,...", "names of the axes of a k-space array, in order, such as "
                   "slice,ky,kx or coil,ky,kx,kz. Possible names: frame, slice, kz, coil, ky, kx. "
                   "With kz, the scan is 3-D, and ky must be its fully sampled readout. Default: "
                   "the last axes of slice,coil,ky,kx")}
_ONE = "--workdir=DIR | --pretrained=NAME"

COMMANDS = {
    "train": Command(
        _train, "train a model, or all runs of a grid; repeat the command to resume stopped runs",
        "--config=FILE --workdir=DIR [--config.KEY=VALUE ...]", {
            "config": _value("FILE", "a config file, or the name of a shipped config, such as "
                             "demo. FILE:NAME passes NAME to get_config() of FILE. For a grid of "
                             "runs, such as ablate:flat_parts, all runs are trained and "
                             "evaluated, and a table and a figure are written"),
            "workdir": _value("DIR", "folder of the run, for config, metrics and checkpoints"),
            **_SHOW,
            "distributed": _value("HOST:PORT,PROCESSES,INDEX", "train together with other "
                                  "processes that run this command; under SLURM or on a TPU pod, "
                                  "without a value (docs/hosts.md)",
                                  nargs="?", const=""),
            "results": _value("DIR", "for a grid: folder for scores, table and figure; "
                              "default: WORKDIR/results"),
            "dry-run": _switch("for a grid: print the runs, the number of their parameters and "
                               "the estimated time, and exit")}),
    "evaluate": Command(
        _evaluate, "score a trained model on the test sets of its config",
        f"({_ONE}) [--output=DIR] [--config.KEY=VALUE ...]", {
            **_MODEL,
            "output": _value("DIR", "folder for metrics, reconstructions and figures; "
                             "default: WORKDIR/eval; required with --pretrained, and "
                             "if --config.KEY=VALUE changes what is evaluated")}),
    "reconstruct": Command(
        _reconstruct, "reconstruct scans to NAME.h5, .nii and .png; the default model is multicoil",
        f"PATH [PATH ...] [{_ONE}] [--output=DIR] [--config.KEY=VALUE ...]", {
            "input": _values("PATH", "same as PATH: file or folder of k-space (.npy, .npz, BART "
                             ".cfl, fastMRI and ISMRMRD .h5, Siemens .dat, MATLAB 7.3 .mat), or a "
                             "magnitude volume, whose acquisition is simulated. "
                             "--config.acquisition.* sets this acquisition, or undersamples "
                             "k-space that is fully sampled"),
            **_MODEL,
            "output": _value("DIR", "folder for the results; default: WORKDIR/reconstructions with "
                             "--workdir, otherwise ./reconstructions"),
            "mask": _value("FILE", "sampling mask (.npy, .npz) to use instead of the file's. If "
                           "neither exists, all nonzero samples count as measured"),
            "maps": _value("FILE", "coil sensitivities (.npy, .npz, .cfl) to use instead of the "
                           "file's. If there are none, ESPIRiT estimates them"),
            **_ARRAYS,
            "adapt": _value("MINUTES", "first fine-tune the model on each scan alone, for at most "
                            "this many minutes (5 without a number). The scan must be undersampled "
                            "(docs/self_supervised.md)", nargs="?", const=5.0, type=_minutes),
            "keep-weights": _switch("with --adapt: also write the fine-tuned model, to a folder "
                                    "with the scan's name beside the results, for --pretrained"),
            "keep-going": _switch("skip broken files, print a line for each, and exit with "
                                  "status 2 at the end")}, paths=True),
    "compare": Command(
        _compare, "score several runs on the same slices, and write one table and one figure",
        "--workdir=A --workdir=B ... --output=DIR [--config.KEY=VALUE ...]", {
            **_MODEL,
            "output": _value("DIR", "folder for the table with differences from the first run, "
                             "the figures, and the results of each run"),
            "accelerations": _value("R,R,...", "evaluate every run at each of these accelerations",
                                    type=_numbers, default=[])}),
    "export": Command(
        _export, "write a model's reconstruction function and weights to one file, which "
        "needs only JAX and flatbuffers (docs/export.md)",
        f"({_ONE}) --to=FILE [--config.KEY=VALUE ...]", {
            **_MODEL, "to": _value("FILE", "the file to write")}),
    "pack": Command(
        _pack, "convert a run to a small folder: half-precision weights, config, scores and card",
        "--workdir=DIR --to=FOLDER [--config.KEY=VALUE ...]", {
            **_MODEL,
            "to": _value("FOLDER", "folder for the packed model"),
            "output": _value("DIR", "folder for the results of the evaluation; default: "
                             "WORKDIR/eval_NAME, where NAME is the name of FOLDER")}),
    "inspect": Command(
        _inspect, "list the contents of k-space files and volumes, and draw a slice of each kind; "
        "PATH is a file or a folder",
        "PATH [PATH ...] [--output=DIR]",
        {"output": _value("DIR", "folder for the pictures; default: ./inspect"), **_ARRAYS},
        paths=True),
}
