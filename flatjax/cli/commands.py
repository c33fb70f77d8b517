"""The subcommands of `flatjax`: their flags, and the functions that they call.

Nothing but flags is imported before a command runs, so that `--help` answers at once.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from absl import flags

from flatjax.errors import InputError

if TYPE_CHECKING:
    from ml_collections import ConfigDict


class Option(NamedTuple):
    """A flag of a subcommand.

    Attributes:
        name: without the dashes.
        value: what help calls its value; empty for a flag that takes none.
        text: its help.
        kind: of absl's `DEFINE_` functions; or "optional", whose value may be left out: "true".
        alias: another name that is taken for it.
    """

    name: str
    value: str
    text: str
    kind: str = "string"
    alias: str = ""

    def define(self, values: flags.FlagValues) -> None:
        """Add the flag to others."""
        if self.kind == "optional":
            flags.DEFINE_flag(flags.Flag(flags.ArgumentParser(), flags.ArgumentSerializer(),
                                         self.name, None, self.text, boolean=True), values)
            return
        default = {"bool": False, "multi_string": [], "list": []}.get(self.kind)
        getattr(flags, f"DEFINE_{self.kind}")(
            self.name, default, self.text, flag_values=values,
            short_name="h" if self.name == "help" else None)
        if self.alias:
            flags.DEFINE_alias(self.alias, self.name, values)


class Command(NamedTuple):
    """A subcommand.

    Attributes:
        summary: what it does.
        usage: its arguments.
        options: its flags.
        run: `(values of the flags, --config.key=value arguments, other arguments)`.
        configurable: whether it takes `--config.key=value`.
        paths: whether it takes arguments that are not flags.
    """

    summary: str
    usage: str
    options: Sequence[Option]
    run: Callable[[flags.FlagValues, list[str], list[str]], None]
    configurable: bool = True
    paths: bool = False


def _required(values: flags.FlagValues, name: str) -> str:
    value = values[name].value
    if not value:
        raise InputError(f"--{name} is missing, expected --{name}=VALUE (see --help)")
    return str(value)


def _set(config: "ConfigDict", values: flags.FlagValues, overrides: list[str]) -> "ConfigDict":
    """The config as the command line changes it; `--show-config` ends the program here."""
    from flatjax.experiments.config_file import listing, override
    config = override(config, overrides)
    if values["show-config"].value:
        print(listing(config))
        raise SystemExit(0)
    return config


def _train(values: flags.FlagValues, overrides: list[str], paths: list[str]) -> None:
    name = _required(values, "config")
    workdir = "" if values["show-config"].value else _required(values, "workdir")
    if values.distributed is not None:  # first of all that asks for devices, as configs may
        from flatjax.runs.hosts import join
        join("" if values.distributed == "true" else values.distributed)
    from ml_collections import ConfigDict

    from flatjax.experiments.config_file import load_config_file
    config = load_config_file(name)
    if isinstance(config, ConfigDict):
        from flatjax.training.train import train
        train(_set(config, values, overrides), workdir)
        return
    from flatjax.experiments.run import describe, run_grid
    grid = config._replace(runs={
        run: one._replace(config=_set(one.config, values, overrides))
        for run, one in config.runs.items()})
    if values["dry-run"].value:
        print(describe(grid, workdir, values.results))
    else:
        run_grid(grid, workdir, values.results)


def _models(values: flags.FlagValues, overrides: list[str], *, needs_output: bool = True,
            several: bool = False) -> list[tuple["ConfigDict", str | Path]]:
    """Config and folder of each run, or packed model, that is named.

    Raises:
        InputError: if none is, or several where one is expected; for a packed model without an
            output, as its folder is no place for results.
    """
    from flatjax.inference.pretrained import folder
    from flatjax.runs.workdir import load_config
    count = len(values.workdir) + len(values.pretrained)
    if not count:
        raise InputError("--workdir is missing, expected --workdir=DIR, or --pretrained=NAME "
                         "(see --help)")
    if count > 1 and not several:
        raise InputError(f"{count} workdirs or models were named, expected one; flatjax compare "
                         "takes several")
    workdirs = [*values.workdir, *map(folder, values.pretrained)]
    if values.pretrained and needs_output and not values["show-config"].value:
        _required(values, "output")
    return [(_set(load_config(workdir), values, overrides), workdir) for workdir in workdirs]


def _evaluate(values: flags.FlagValues, overrides: list[str], paths: list[str]) -> None:
    ((config, workdir),) = _models(values, overrides)
    from flatjax.evaluation.evaluate import evaluate
    evaluate(config, workdir, values.output)


def _reconstruct(values: flags.FlagValues, overrides: list[str], paths: list[str]) -> None:
    ((config, workdir),) = _models(values, overrides)
    inputs = [*paths, *values.input]
    if not inputs:
        raise InputError("no input, expected files or folders of k-space (see --help)")
    from flatjax.inference.reconstruct import reconstruct_files
    reconstruct_files(config, workdir, inputs, values.output, mask=values.mask or "",
                      maps=values.maps or "", keep_going=bool(values["keep-going"].value))


def _compare(values: flags.FlagValues, overrides: list[str], paths: list[str]) -> None:
    try:
        accelerations = [float(part) for part in values.accelerations if part]
    except ValueError as error:
        raise InputError(f"--accelerations is {','.join(values.accelerations)!r}, expected "
                         "numbers, as --accelerations=4,8,12") from error
    models = _models(values, overrides, several=True)
    output = _required(values, "output")
    from flatjax.evaluation.compare import compare, labels
    compare(dict(zip(labels([workdir for _, workdir in models]), models, strict=True)), output,
            accelerations)


def _export(values: flags.FlagValues, overrides: list[str], paths: list[str]) -> None:
    ((config, workdir),) = _models(values, overrides, needs_output=False)
    from flatjax.inference.export import export_run
    export_run(config, workdir, _required(values, "to"))


def _pack(values: flags.FlagValues, overrides: list[str], paths: list[str]) -> None:
    ((config, workdir),) = _models(values, overrides)
    from flatjax.inference.pretrained import pack
    pack(config, workdir, _required(values, "to"), values.output)


def _inspect(values: flags.FlagValues, overrides: list[str], paths: list[str]) -> None:
    if not paths:
        raise InputError("no path, expected files or folders (see --help)")
    from flatjax.inference.inspection import inspect_files
    errors = inspect_files(paths, values.output or "inspect")
    if errors:
        raise InputError(f"{len(errors)} broken files, named above")


_SHOW = Option("show-config", "", "list the keys of the config with their values, and end", "bool")
_MODEL = (Option("workdir", "DIR", "folder of a run made by flatjax train", "multi_string"),
          Option("pretrained", "NAME", "in its place: name of a shipped model, such as brain, or a "
                 "folder made by flatjax pack", "multi_string"), _SHOW)
_ONE = "--workdir=DIR | --pretrained=NAME"

COMMANDS = {
    "train": Command(
        "train a model, or every run of a grid; the same command resumes it",
        "--config=FILE --workdir=DIR [--config.KEY=VALUE ...]", (
            Option("config", "FILE", "a config file, or the name of one that flatjax ships, such "
                   "as demo; FILE:NAME hands NAME to its get_config. A grid of runs, such as "
                   "ablate:flat_parts, is trained, evaluated and tabled"),
            Option("workdir", "DIR", "folder of the run: config, metrics, checkpoints"), _SHOW,
            Option("distributed", "[HOST:PORT,PROCESSES,INDEX]", "join the other processes that "
                   "run this command (docs/hosts.md)", "optional"),
            Option("results", "DIR", "of a grid: folder of scores, table and figure; "
                   "WORKDIR/results by default"),
            Option("dry-run", "", "of a grid: print the runs, their parameters and the time that "
                   "they should take", "bool")), _train),
    "evaluate": Command(
        "score a trained model on the test sets of its data",
        f"{_ONE} [--output=DIR] [--config.KEY=VALUE ...]", (
            *_MODEL, Option("output", "DIR", "folder for metrics, reconstructions and figures; "
                            "WORKDIR/eval by default, needed with --pretrained")), _evaluate),
    "reconstruct": Command(
        "reconstruct files without targets, as NAME.h5, NAME.nii and NAME.png",
        f"PATH [PATH ...] {_ONE} [--output=DIR] [--config.KEY=VALUE ...]", (
            Option("input", "PATH", "as PATH: file or folder of k-space (.npy, .npz, BART .cfl, "
                   "fastMRI and ISMRMRD .h5), or a magnitude volume, whose acquisition is "
                   "simulated as --config.acquisition says", "multi_string"),
            *_MODEL,
            Option("output", "DIR", "WORKDIR/reconstructions by default, needed with --pretrained"),
            Option("mask", "FILE", ".npy or .npz of the sampling mask, where the data do not have "
                   "it"),
            Option("maps", "FILE", ".npy, .npz or .cfl of coil sensitivities, in place of those by "
                   "ESPIRiT"),
            Option("keep-going", "", "leave broken files out, with a line for each, and exit with "
                   "status 2 at the end", "bool")), _reconstruct, paths=True),
    "compare": Command(
        "score several runs on the same slices, with the first, in one table and one figure",
        "--workdir=A --workdir=B ... --output=DIR [--config.KEY=VALUE ...]", (
            *_MODEL, Option("output", "DIR", "folder for tables, figures and a folder per run"),
            Option("accelerations", "R,R,...", "evaluate all of them at each of these", "list")),
        _compare),
    "export": Command(
        "write a model's reconstruction with its weights as one file that needs JAX alone "
        "(docs/export.md)", f"{_ONE} --to=FILE [--config.KEY=VALUE ...]", (
            *_MODEL, Option("to", "FILE", "the file to write", alias="export")), _export),
    "pack": Command(
        "write a run's weights in half precision, with config, scores and model card",
        "--workdir=DIR --to=FOLDER [--config.KEY=VALUE ...]", (
            *_MODEL, Option("to", "FOLDER", "folder of the model", alias="pack"),
            Option("output", "DIR", "folder for what evaluating it writes; WORKDIR/eval by "
                   "default")), _pack),
    "inspect": Command(
        "list what files of k-space and volumes hold, and draw a slice of each kind",
        "PATH [PATH ...] [--output=DIR]", (
            Option("output", "DIR", "folder for the pictures; inspect by default"),), _inspect,
        configurable=False, paths=True),
}
