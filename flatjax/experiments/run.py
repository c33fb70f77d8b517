"""Running a grid: training and evaluating what is missing, or telling what that would take."""

import json
from collections import defaultdict
from pathlib import Path

import jax
import numpy as np

from flatjax import config as configuration
from flatjax.errors import BusyError, NonFiniteError, TrainingError
from flatjax.evaluation import tables
from flatjax.evaluation.evaluate import evaluate_sets
from flatjax.experiments import outcomes, report
from flatjax.experiments.grid import Grid, Trial, trials
from flatjax.experiments.outcomes import Outcome, missing_evaluations, outcome
from flatjax.files import locked, make_folder
from flatjax.runs.checkpoint import Checkpoints
from flatjax.runs.weights import expected_params
from flatjax.runs.workdir import check_owner
from flatjax.training.train import train


def run_grid(grid: Grid, workdir: str | Path, results: str | Path | None = None) -> None:
    """Train and evaluate what is missing, then write `table.{md,csv,json}` and `figure.{png,pdf}`.

    Args:
        grid: what to run.
        workdir: a folder per run, as `train` and `evaluate` make it.
        results: folder of the scores, the table and the figure; `workdir/results` by default.

    Raises:
        InputError: for a config that cannot run, or a folder that holds a run of another one.
        TrainingError: at the end, if runs did not finish or gave what is not finite; they are
            named.
    """
    workdir = make_folder(workdir)
    results = make_folder(results or workdir / "results")
    every = trials(grid)
    outcomes.reuse_results(every, results)
    broken, busy = {}, []
    for trial in every:
        if not missing_evaluations(trial, results):
            continue
        print(f"\n== {grid.title}: {trial.name}", flush=True)
        try:
            complete(trial, workdir / trial.name, results)
        except (TrainingError, NonFiniteError) as error:
            broken[trial.name] = error
            print(f"{trial.name}: {error}")
        except BusyError:
            busy.append(trial.name)
            print(f"{trial.name}: in training by another process")
        jax.clear_caches()
        report.write(grid, results)
    print(report.write(grid, results))
    if busy:
        print(f"in training elsewhere: {', '.join(busy)}; the last to finish completes the table")
    if broken:
        raise TrainingError(f"{len(broken)} of {len(every)} runs failed: " + "; ".join(
            f"{name}: {error}" for name, error in broken.items()))


def complete(trial: Trial, workdir: Path, results: Path) -> None:
    """Train a trial to its end, if it is not there yet, and make its missing evaluations.

    Raises:
        BusyError: another process is at this trial.
        InputError: the workdir holds a run of another config, or this one cannot run.
        NonFiniteError: an evaluation is not finite.
    """
    with locked(make_folder(workdir) / ".trial", f"the run {workdir}"):
        missing = missing_evaluations(trial, results)  # another process may just have made some
        if not missing:
            return
        check_owner(workdir, trial.config)
        if _trained_steps(trial, workdir) < trial.config.train.steps:
            train(trial.config, workdir)
        for name in missing:
            config = trial.evaluations[name]
            output = workdir / "evaluations" / (name or "plain")
            sets = {key: one.metrics | {"slices": {
                score: np.round(values, 6).tolist() for score, values in one.slices.items()}}
                for key, one in evaluate_sets(config, workdir, output).items()}
            trained, evaluated = (json.loads(configuration.to_json(one))
                                  for one in (trial.config, config))
            outcomes.save(Outcome(trained, evaluated, training_rate(workdir), sets),
                          outcomes.path_of(trial, name, results))


def describe(grid: Grid, workdir: str | Path, results: str | Path | None = None) -> str:
    """The runs, what is left of each, and how long that should take, as Markdown.

    Times are those that other runs of the same method took per slice, in this folder or on file.
    """
    workdir = Path(workdir)
    results = Path(results or workdir / "results")
    every = trials(grid)
    rates: dict[str, list[float]] = defaultdict(list)
    for trial in every:
        known = [one.slices_per_second for evaluation in trial.evaluations
                 if (one := outcome(trial, evaluation, results))]
        rates[trial.config.method.name] += filter(None, [*known, training_rate(
            workdir / trial.name)])
    rows, total = [], 0.0
    for trial in every:
        config, rate = trial.config, rates[trial.config.method.name]
        missing = missing_evaluations(trial, results)
        done = config.train.steps if not missing else _trained_steps(trial, workdir / trial.name)
        left = (config.train.steps - done) * config.train.batch_size
        minutes = 0.0 if not left else left / np.median(rate) / 60 if rate else np.nan
        total += np.nan_to_num(minutes)
        parameters = sum(leaf.size for leaf in jax.tree.leaves(
            expected_params(configuration.make_method(config))))
        state = ("done" if not missing else "to evaluate" if not left
                 else f"at step {done}" if done else "to train")
        rows.append([trial.name, config.method.name, f"{parameters:,}", str(config.train.steps),
                     state, "?" if np.isnan(minutes) else f"{minutes:.1f}"])
    unknown = any(row[-1] == "?" for row in rows)
    return "\n".join([
        *tables.markdown(["run", "method", "parameters", "steps", "state", "minutes left"], rows),
        "", f"{len(rows)} runs, {total:.0f} minutes left"
        + " and those of which nothing is known yet" * unknown])


def training_rate(workdir: Path) -> float | None:
    """Slices per second that a run trained at, the median of its log, or None."""
    try:
        lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
        rates = [float(line["slices_per_second"]) for line in lines if "slices_per_second" in line]
    except (OSError, ValueError, TypeError, OverflowError, RecursionError):
        return None
    return float(np.median(rates)) if rates else None


def _trained_steps(trial: Trial, workdir: Path) -> int:
    return max(Checkpoints(workdir, trial.config.train.best_metric).steps(), default=0)
