"""What the evaluations of a grid gave: a small JSON file each, recognized by its configs."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from flatjax import config as configuration
from flatjax.experiments.grid import Trial
from flatjax.files import write_text


class Outcome(NamedTuple):
    """What an evaluation of a trial gave."""

    trained: dict[str, Any]  # the config, as JSON has it
    evaluated: dict[str, Any]
    slices_per_second: float | None  # of the training, if known
    sets: dict[str, dict[str, Any]]  # by test set, as from `tables.with_slices`


def outcome(trial: Trial, evaluation: str, results: Path) -> Outcome | None:
    """The outcome that is on file for this very config, or None."""
    identity, found = read(path_of(trial, evaluation, results)) or ("", None)
    return found if identity == _identity(trial.config, trial.evaluations[evaluation]) else None


def missing_evaluations(trial: Trial, results: Path) -> list[str]:
    """The evaluations of a trial that have no outcome on file."""
    return [name for name in trial.evaluations if outcome(trial, name, results) is None]


def reuse_results(trials: list[Trial], results: Path) -> None:
    """Copy what grids in neighboring folders have on file for the same configs."""
    known = dict(filter(None, map(read, sorted(results.parent.glob("*/runs/*.json")))))
    for trial in trials:
        for name in missing_evaluations(trial, results):
            same = known.get(_identity(trial.config, trial.evaluations[name]))
            if same:
                save(same, path_of(trial, name, results))


def path_of(trial: Trial, evaluation: str, results: Path) -> Path:
    """The file of an outcome."""
    return results / "runs" / f"{trial.name}{'_' * bool(evaluation)}{evaluation}.json"


def read(path: Path) -> tuple[str, Outcome] | None:
    """The outcome in a file, after what its configs are recognized by; None if it is damaged."""
    try:
        saved = Outcome(**json.loads(path.read_text()))
        configs = [configuration.from_json(json.dumps(one)) for one in (saved.trained,
                                                                        saved.evaluated)]
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    return _identity(*configs), saved


def save(outcome: Outcome, path: Path) -> None:
    """Write the file of an outcome."""
    write_text(path, json.dumps(outcome._asdict()) + "\n")


def _identity(trained: ConfigDict, evaluated: ConfigDict) -> str:
    return configuration.to_json(trained) + configuration.to_json(evaluated)
