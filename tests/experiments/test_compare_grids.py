"""The grids of the comparison: every row that it promises, at the budgets that it promises."""

from pathlib import Path

import pytest

from flatjax import cli, config as configuration
from flatjax.experiments.config_file import load_config_file
from flatjax.experiments.grid import Grid, Run, label, trials

COMPARE = Path(__file__).parents[2] / "configs" / "compare.py"
NAMES = ("methods_r4", "methods_r8", "evaluations")
GENERATIVE = {"flow_matching", "mc_ddpm", "score_sde", "dds"}


def load(name):
    return load_config_file(f"{COMPARE}:{name}")


@pytest.mark.parametrize("name", NAMES)
def test_every_run_can_be_made(name):
    grid = load(name)
    assert {grid.baseline, *(run.baseline for run in grid.runs.values())} - {""} <= {
        label(one.title or run, evaluation)
        for run, one in grid.runs.items() for evaluation in one.evaluations}
    for trial in trials(grid):
        for config in trial.evaluations.values():
            configuration.make_method(config)
            configuration.make_acquisition(config)
        configuration.make_training(trial.config, 1)
    different = {configuration.to_json(trial.config) for trial in trials(grid)}
    assert len(different) == len(trials(grid)), "no run is made twice"


def test_budgets_seeds_and_accelerations():
    for name, factor, count, budgets, longest in (
            ("methods_r4", 4, 33, {600, 1800}, {600, 1800, 6000}),
            ("methods_r8", 8, 15, {1800}, {6000})):
        grid = load(name)
        assert len(trials(grid)) == count
        steps = {}
        for trial in trials(grid):
            method = trial.config.method
            steps.setdefault(method.name, set()).add(trial.config.train.steps)
            for config in trial.evaluations.values():
                assert config.acquisition.acceleration == factor
            twin = trial.run.startswith(("flat", "varnet")) and not any(
                word in trial.run for word in ("fastMRI", "K 12"))
            assert (grid.runs[trial.run].seeds == (0, 1)) == twin
        assert steps.pop("compressed_sensing") == {60}
        for method, found in steps.items():
            assert found == (longest if method in GENERATIVE else budgets)
    losses = {trial.config.method.loss.name for trial in trials(load("methods_r4"))
              if trial.config.method.name == "varnet"}
    assert losses == {"own", "flat"}


def test_every_run_is_compared_with_flat_at_its_budget():
    for name in ("methods_r4", "methods_r8"):
        grid = load(name)
        titled = {run.title or name: run for name, run in grid.runs.items()}
        assert len(titled) == len(grid.runs)
        for run in titled.values():
            flat = titled[run.baseline or grid.baseline].config
            assert flat.method.name == "flat"
            if run.config.method.name != "compressed_sensing":
                assert flat.train.steps == min(run.config.train.steps, 1800)


def test_grids_share_what_they_have_in_common():
    """A name means one config in all three, so that one workdir serves them."""
    known = {}
    for name in NAMES:
        for trial in trials(load(name)):
            text = configuration.to_json(trial.config)
            assert known.setdefault(trial.name, text) == text
    assert len(known) == 33 + 15 - 2 + 9 - 6


def test_samplers_take_the_evaluations_that_they_are_called_by():
    per_step = {"score_sde": 2}
    found = {}
    for trial in trials(load("evaluations")):
        if trial.config.method.name == "flat":
            continue
        for name, config in trial.evaluations.items():
            method = config.method
            count, _, samples, _ = name.split()
            steps = method.get("schedule", method).steps
            assert int(samples) == method.samples
            assert int(count) == method.samples * steps * per_step.get(method.name, 1)
            found.setdefault((trial.run, method.samples), []).append(int(count))
    for run in ("flow_matching 10x", "mc_ddpm 10x", "dds 10x"):
        assert [found[run, samples] for samples in (1, 2, 4)] == [
            [12, 24, 36, 50, 100], [12, 24, 36, 50, 100], [12, 24, 36, 100]]
    assert [found["score_sde 10x", samples] for samples in (1, 2, 4)] == [
        [12, 24, 36, 50, 100], [12, 24, 36, 100], [24]]


def test_a_run_may_have_seeds_of_its_own():
    config = load_config_file("singlecoil")
    grid = Grid("Toy", {"a": Run(config), "b": Run(config, seeds=(0, 3))}, "a", seeds=(1,))
    assert [trial.name for trial in trials(grid)] == ["b_seed0", "a_seed1", "b_seed3"]


def test_the_command_describes_and_refuses(tmp_path, capsys):
    def command(*argv):
        cli.main(["train", *argv])

    command(f"--config={COMPARE}:evaluations", f"--workdir={tmp_path}", "--dry-run")
    printed = capsys.readouterr().out
    assert "| dds 10x_seed0 | dds | " in printed and "| 6000 | to train | ? |" in printed
    assert "9 runs" in printed and not list(tmp_path.iterdir())
    with pytest.raises(SystemExit) as stopped:
        command(f"--config={COMPARE}:all", f"--workdir={tmp_path}")
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and error.count("\n") == 1
    assert "the comparison is 'all', expected configs/compare.py:NAME with one of" in error
