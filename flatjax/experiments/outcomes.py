"""What the evaluations of a grid gave: a small JSON file each, recognized by its configs."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from flatjax import config as configuration
from flatjax.errors import InputError
from flatjax.experiments.grid import Grid, Trial, changed, label, trials
from flatjax.files import write_text


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


def outcome(trial: Trial, evaluation: str, results: Path) -> Outcome | None:
    """The outcome that is on file for this very config, or None."""
    found = _read(path_of(trial, evaluation, results))
    return found[1] if found and found[0] == _identity(
        trial.config, changed(trial.config, trial.evaluations[evaluation])) else None


def reuse_results(grid: Grid, results: Path) -> None:
    """Copy what grids in neighboring folders have on file for the same configs."""
    known = dict(filter(None, map(_read, sorted(results.parent.glob("*/runs/*.json")))))
    for trial in trials(grid):
        for name in missing_evaluations(trial, results):
            same = known.get(_identity(trial.config, changed(trial.config,
                                                             trial.evaluations[name])))
            if same:
                save(same, path_of(trial, name, results))


def outcomes(grid: Grid, results: Path) -> Iterator[tuple[str, Trial, Outcome]]:
    """Every outcome on file: `(label, trial, outcome)`, in the grid's order."""
    for name, run in grid.runs.items():
        for evaluation in run.evaluations:
            for trial in trials(grid):
                found = outcome(trial, evaluation, results) if trial.run == name else None
                if found:
                    yield label(name, evaluation), trial, found


def missing_evaluations(trial: Trial, results: Path) -> list[str]:
    """The evaluations of a trial that have no outcome on file."""
    return [name for name in trial.evaluations if outcome(trial, name, results) is None]


def path_of(trial: Trial, evaluation: str, results: Path) -> Path:
    """The file of an outcome."""
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


def save(outcome: Outcome, path: Path) -> None:
    """Write the file of an outcome."""
    write_text(path, json.dumps(outcome._asdict()) + "\n")


def _identity(trained: ConfigDict, evaluated: ConfigDict) -> str:
    return configuration.to_json(trained) + configuration.to_json(evaluated)
