"""Grids of runs: an ablation or a comparison by one command, that goes on where it stopped.

A config file whose `get_config` returns a `Grid` trains what is missing, evaluates it, and writes
one table and one figure. What a run scored is one small JSON file per evaluation; a grid whose
files are all there trains nothing, so that those files can be kept where the checkpoints are not.
Grids whose folders of results lie side by side share what they have in common.

The same command may be started several times at once, one per device or host that shares the
folder: each takes runs that no other is training.
"""

import csv
import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from flatjax import config as configuration
from flatjax.errors import InputError, NonFiniteError, TrainingError
from flatjax.evaluation.evaluate import evaluate
from flatjax.files import Busy, locked, make_folder, write_text
from flatjax.runs.checkpoint import Checkpoints, expected_params
from flatjax.training.train import check_owner, train


class Run(NamedTuple):
    """One line of a grid, or several.

    Attributes:
        config: of the training, whose seed the grid replaces.
        evaluations: what is changed of the config for each evaluation of the trained model, by
            its name; by default one without a name that changes nothing.
        seeds: it is made with each of them; empty for the grid's.
        baseline: what its slices are compared with, as `Grid.baseline`; empty for the grid's.
    """

    config: ConfigDict
    evaluations: Mapping[str, Mapping[str, Any]] = {"": {}}
    seeds: tuple[int, ...] = ()
    baseline: str = ""


class Grid(NamedTuple):
    """Runs that differ in one thing each.

    Attributes:
        title: of its table and figure.
        runs: by name.
        seeds: every run without its own is made with each of them.
        baseline: label, see `label`, of what the slices of runs without a baseline of their own
            are compared with.
    """

    title: str
    runs: dict[str, Run]
    baseline: str
    seeds: tuple[int, ...] = (0,)


class Trial(NamedTuple):
    """One training of a grid: a run with a seed."""

    run: str
    seed: int
    config: ConfigDict
    evaluations: Mapping[str, Mapping[str, Any]]

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.run}_seed{self.seed}"


class Outcome(NamedTuple):
    """What an evaluation of a trial gave.

    Attributes:
        trained, evaluated: the configs, as JSON has them.
        slices_per_second: of the training, or None.
        sets: by test set, what `evaluate` returns, with `"slices"`: scores `[slices]` by name.
    """

    trained: dict[str, Any]
    evaluated: dict[str, Any]
    slices_per_second: float | None
    sets: dict[str, dict[str, Any]]


def label(run: str, evaluation: str) -> str:
    """The name of an evaluation of a run in tables."""
    return f"{run}, {evaluation}" if evaluation else run


def changed(config: ConfigDict, changes: Mapping[str, Any]) -> ConfigDict:
    """A copy of the config with values replaced.

    Args:
        config: stays as it is.
        changes: new values by dotted name, as "method.steps".

    Raises:
        InputError: for a name that the config does not have.
    """
    config = ConfigDict(config.to_dict())
    for key, value in changes.items():
        *sections, name = key.split(".")
        try:
            part = reduce(lambda whole, section: whole[section], sections, config)
            part[name]  # a new key would be set without complaint
            part[name] = value
        except (KeyError, ValueError, TypeError) as error:
            raise InputError(f"{key} = {value!r} cannot be set: {error}; expected a key of the "
                             "config and a value of its type") from error
    return config


def trials(grid: Grid) -> list[Trial]:
    """All trainings of a grid, one seed after the other."""
    seeds = {name: run.seeds or grid.seeds for name, run in grid.runs.items()}
    return [Trial(name, seed, changed(run.config, {"seed": seed}), run.evaluations)
            for seed in sorted({one for own in seeds.values() for one in own})
            for name, run in grid.runs.items() if seed in seeds[name]]


def run_grid(grid: Grid, workdir: str | Path, results: str | Path | None = None) -> None:
    """Train and evaluate what is missing, then write `table.{md,csv,json}` and `figure.png`.

    Args:
        grid: what to run.
        workdir: a folder per run, as `train` and `evaluate` make it.
        results: folder of the scores, the table and the figure; `workdir/results` by default.

    Raises:
        InputError: for a config that cannot run, or a folder that holds a run of another one.
        TrainingError: at the end, if runs did not finish or gave what is not finite; they are
            named.
    """
    from flatjax.experiments import report as grid_report

    workdir = make_folder(workdir)
    results = make_folder(results or workdir / "results")
    adopt(grid, results)
    broken, busy = {}, []
    for trial in trials(grid):
        if not _missing(trial, results):
            continue
        print(f"\n== {grid.title}: {trial.name}", flush=True)
        try:
            complete(trial, workdir / trial.name, results)
        except (TrainingError, NonFiniteError) as error:
            broken[trial.name] = error
            print(f"{trial.name}: {error}")
        except Busy:
            busy.append(trial.name)
            print(f"{trial.name}: in training by another process")
        jax.clear_caches()
        grid_report.write(grid, results)
    print(grid_report.write(grid, results))
    if busy:
        print(f"in training elsewhere: {', '.join(busy)}; the last to finish completes the table")
    if broken:
        raise TrainingError(f"{len(broken)} of {len(trials(grid))} runs failed: " + "; ".join(
            f"{name}: {error}" for name, error in broken.items()))


def complete(trial: Trial, workdir: Path, results: Path) -> None:
    """Train a trial to its end, if it is not there yet, and make its missing evaluations.

    Raises:
        Busy: another process is at this trial.
        InputError: the workdir holds a run of another config, or this one cannot run.
        NonFiniteError: an evaluation is not finite.
    """
    with locked(make_folder(workdir) / ".trial", f"the run {workdir}"):
        missing = _missing(trial, results)  # another process may just have made some
        if not missing:
            return
        check_owner(workdir, trial.config)
        if _trained_steps(trial, workdir) < trial.config.train.steps:
            train(trial.config, workdir)
        for name in missing:
            config = changed(trial.config, trial.evaluations[name])
            output = workdir / "evaluations" / (name or "plain")
            metrics = evaluate(config, workdir, output)
            first = next(iter(metrics), None)
            sets = {key: one | {"slices": _slices(output if key == first else output / key)}
                    for key, one in metrics.items()}
            _write(Outcome(_plain(trial.config), _plain(config), training_rate(workdir), sets),
                   _path(trial, name, results))


def outcome(trial: Trial, evaluation: str, results: Path) -> Outcome | None:
    """The outcome that is on file for this very config, or None."""
    found = _read(_path(trial, evaluation, results))
    return found[1] if found and found[0] == _identity(
        trial.config, changed(trial.config, trial.evaluations[evaluation])) else None


def adopt(grid: Grid, results: Path) -> None:
    """Copy what grids in neighbouring folders have on file for the same configs."""
    known = dict(filter(None, map(_read, sorted(results.parent.glob("*/runs/*.json")))))
    for trial in trials(grid):
        for name in _missing(trial, results):
            same = known.get(_identity(trial.config, changed(trial.config,
                                                             trial.evaluations[name])))
            if same:
                _write(same, _path(trial, name, results))


def outcomes(grid: Grid, results: Path) -> Iterator[tuple[str, Trial, Outcome]]:
    """Every outcome on file: `(label, trial, outcome)`, in the grid's order."""
    for name, run in grid.runs.items():
        for evaluation in run.evaluations:
            for trial in trials(grid):
                found = outcome(trial, evaluation, results) if trial.run == name else None
                if found:
                    yield label(name, evaluation), trial, found


def describe(grid: Grid, workdir: str | Path, results: str | Path | None = None) -> str:
    """The runs, what is left of each, and how long that should take, as Markdown.

    Times are those that other runs of the same method took per slice, in this folder or on file.
    """
    workdir = Path(workdir)
    results = Path(results or workdir / "results")
    rates: dict[str, list[float]] = {}
    for trial in trials(grid):
        known = [one.slices_per_second for evaluation in trial.evaluations
                 if (one := outcome(trial, evaluation, results))]
        known.append(training_rate(workdir / trial.name))
        rates.setdefault(trial.config.method.name, []).extend(rate for rate in known if rate)
    rows = ["| run | method | parameters | steps | state | minutes left |",
            "|---|---|---|---|---|---|"]
    total, unknown = 0.0, False
    for trial in trials(grid):
        config = trial.config
        missing = _missing(trial, results)
        done = config.train.steps if not missing else _trained_steps(trial, workdir / trial.name)
        left = (config.train.steps - done) * config.train.batch_size
        rate = rates[config.method.name]
        minutes = 0.0 if not left else left / np.median(rate) / 60 if rate else None
        total, unknown = total + (minutes or 0), unknown or minutes is None
        parameters = sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(
            expected_params(configuration.make_method(config))))
        state = ("done" if not missing else "to evaluate" if not left
                 else f"at step {done}" if done else "to train")
        rows.append(f"| {trial.name} | {config.method.name} | {int(parameters):,} | "
                    f"{config.train.steps} | {state} | "
                    f"{'?' if minutes is None else f'{minutes:.1f}'} |")
    rows.append(f"\n{len(trials(grid))} runs, {total:.0f} minutes left"
                + (" and those of which nothing is known yet" if unknown else ""))
    return "\n".join(rows)


def training_rate(workdir: Path) -> float | None:
    """Slices per second that a run trained at, the median of its log, or None."""
    try:
        lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
        rates = [float(line["slices_per_second"]) for line in lines if "slices_per_second" in line]
    except (OSError, ValueError, TypeError, OverflowError, RecursionError):
        return None
    return float(np.median(rates)) if rates else None


def _missing(trial: Trial, results: Path) -> list[str]:
    return [name for name in trial.evaluations if outcome(trial, name, results) is None]


def _trained_steps(trial: Trial, workdir: Path) -> int:
    with closing(Checkpoints(workdir, trial.config.train.best_metric)) as checkpoints:
        return checkpoints.latest() or 0


def _path(trial: Trial, evaluation: str, results: Path) -> Path:
    return results / "runs" / f"{trial.name}{'_' * bool(evaluation)}{evaluation}.json"


def _read(path: Path) -> tuple[str, Outcome] | None:
    """The outcome in a file and the identity of its configs; None if it is damaged."""
    try:
        saved = Outcome(**json.loads(path.read_text()))
        configs = [configuration.from_json(json.dumps(one)) for one in (saved.trained,
                                                                        saved.evaluated)]
    except (OSError, ValueError, TypeError, InputError, RecursionError):
        return None
    return _identity(*configs), saved


def _write(outcome: Outcome, path: Path) -> None:
    write_text(path, json.dumps(outcome._asdict()) + "\n")


def _identity(trained: ConfigDict, evaluated: ConfigDict) -> str:
    return configuration.to_json(trained) + configuration.to_json(evaluated)


def _plain(config: ConfigDict) -> dict[str, Any]:
    return json.loads(configuration.to_json(config))


def _slices(folder: Path) -> dict[str, list]:
    """Columns of `slices.csv`."""
    with (folder / "slices.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {key: [round(float(row[key]), 6) for row in rows] for key in rows[0]
            if key not in ("volume", "slice")}
