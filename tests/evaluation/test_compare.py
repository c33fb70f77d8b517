"""Several runs side by side: the numbers are those of each run, and bad input gets one line."""

import csv
import json
import shutil

import matplotlib.pyplot as plt
import numpy as np
import pytest

from flatjax import cli, config
from flatjax.data import DATASETS, splits
from flatjax.errors import InputError
from flatjax.evaluation import animation
from flatjax.evaluation.compare import at_acceleration, labels
from flatjax.evaluation.evaluate import evaluate
from flatjax.evaluation.statistics import paired_difference
from flatjax.runs.workdir import load_config
from tests.support import toy
from tests.support.browser import contents
from tests.support.untrained import workdir


@pytest.fixture(autouse=True)
def toy_data(monkeypatch):
    monkeypatch.setitem(DATASETS, "toy", toy.make)
    monkeypatch.setattr(animation, "_FRAMES", 3)
    monkeypatch.setattr(animation, "_HELD", 1)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(DATASETS, "toy", toy.make)
        return [workdir(folder / "flat", config.method("flat", **toy.TINY)),
                workdir(folder / "sparse", config.method("compressed_sensing", steps=3, levels=1))]


def call(*arguments):
    cli.main(["compare", *arguments])


def test_every_number_is_the_runs_own(runs, tmp_path, capsys):
    call(*(f"--workdir={run}" for run in runs), f"--output={tmp_path}",
         "--accelerations=4,2")
    rows = json.loads((tmp_path / "comparison.json").read_text())
    assert [(row["acceleration"], row["test_set"], row["run"]) for row in rows] == [
        (r, name, run) for r in (4, 2) for name in ("main", "other") for run in ("flat", "sparse")]
    with (tmp_path / "comparison.csv").open() as file:
        assert [float(row["psnr"]) for row in csv.DictReader(file)] == [row["psnr"] for row in rows]
    slices = []
    for run, row in zip(runs, rows[4:6], strict=True):
        changed = at_acceleration(load_config(run), 2)
        assert changed.acquisition.center_fraction == pytest.approx(0.16)
        own = evaluate(changed, run, tmp_path / "own" / run.name)["main"]
        assert row["psnr"] == own["method"]["psnr"]["mean"] and row["nfe"] == own["nfe"]
        assert row["parameters"] == own["parameters"] and row["psnr_drops"] == own["psnr_drops"]
        with (tmp_path / "own" / run.name / "slices.csv").open() as file:
            slices.append([float(line["ssim"]) for line in csv.DictReader(file)])
    expected = paired_difference(*map(np.array, slices[::-1]))
    assert rows[5]["ssim_difference_mean"] == pytest.approx(expected.mean)
    assert rows[5]["ssim_difference_high"] == pytest.approx(expected.high)
    assert rows[4]["ssim_difference_mean"] is None
    assert rows[5]["nfe"] == 0 and rows[4]["peak_memory_bytes"] > 4 * rows[4]["parameters"]
    text = (tmp_path / "comparison.md").read_text()
    assert text.strip() in capsys.readouterr().out and text.count("| sparse |") == 4
    report = contents(tmp_path / "report_R2.html")
    assert [one["name"] for one in report["panels"]] == ["target", "zero-filled", "flat", "sparse"]
    assert len(report["slices"]) == 3 and report["tables"][0]["rows"][1][0] == "sparse"
    for name in ("comparison_R4.png", "comparison_R2.png", "trajectories_R4.png",
                 "trajectories_R2.png", "forming_R4.gif", "forming_R2.gif"):
        assert plt.imread(tmp_path / name).std() > 0.1


@pytest.mark.parametrize("arguments, words", [
    (["{flat}", "{sparse}"], "--output is missing"),
    (["{flat}", "{flat}", "--output={out}"], "is named twice"),
    (["{flat}", "{out}/none", "--output={out}"], "no config in"),
    (["{flat}", "{sparse}", "--output={out}", "--accelerations=4,x"], "expected numbers, as"),
    (["{flat}", "{sparse}", "--output={out}", "--accelerations=4,0.5"], "0.5, expected at least 1"),
    (["{flat}", "{other}", "--output={out}"], "acquisition.noise is 0.0 for flat but 0.1 for"),
    (["{flat}", "{bare}", "--output={out}"], "no checkpoint in"),
    (["{flat}", "--accelerations=4", "--output={out}", "--config.method.schedule.steps=5"],
     "weights per cascade belong to the steps"),
])
def test_bad_input_gets_one_line_before_anything_is_evaluated(runs, tmp_path, capsys,
                                                              arguments, words):
    bare = tmp_path / "bare"
    other = workdir(tmp_path / "other", config.method("compressed_sensing"),
                    acquisition=config.acquisition(noise=0.1))
    bare.mkdir()
    (bare / "config.json").write_bytes((runs[0] / "config.json").read_bytes())
    names = {"flat": runs[0], "sparse": runs[1], "out": tmp_path / "out", "bare": bare,
             "other": other}
    filled = [one.format(**names) for one in arguments]
    with pytest.raises(SystemExit) as stop:
        call(*(one if one.startswith("--") else f"--workdir={one}" for one in filled))
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.count("\n") == 1 and words in error
    assert not (tmp_path / "out").exists()


def test_runs_of_other_splits_are_refused_and_those_of_one_keep_it(runs, tmp_path, monkeypatch,
                                                                   capsys):
    """Subjects that came later are nobody's, in the scores and in the picture."""
    def make(roles=None):
        roles = roles or {"train": ["c"], "validation": ["val"], "test": ["new", "a"]}
        known = {v.name: v for volumes in toy.make().test.values() for v in volumes}
        known["new"] = known["a"]._replace(name="new")
        return toy.make()._replace(test={"main": [known[name] for name in roles["test"]]},
                                   split=roles, resplit=make)

    copies = [shutil.copytree(run, tmp_path / run.name) for run in runs]
    experiments = [load_config(run) for run in runs]

    def made(*, path="", split=True, split_seed=0, validation=(), test=(), validation_share=0.1,
             test_share=0.2):
        return make()

    monkeypatch.setitem(DATASETS, "toy", made)
    data = config.data("toy", path="here")
    for copy, experiment, tested in zip(copies, experiments, ("a", "b"), strict=True):
        experiment.data = data
        (copy / "config.json").write_text(config.to_json(experiment))
        splits.write_split(make({"train": ["c"], "validation": ["val"], "test": [tested]}), data,
                             copy)
    arguments = [*(f"--workdir={copy}" for copy in copies), f"--output={tmp_path / 'out'}"]
    with pytest.raises(SystemExit) as stop:
        call(*arguments)
    error = capsys.readouterr().err.splitlines()[-1]
    assert stop.value.code == 2 and "flat and sparse are not tested on the same volumes" in error
    assert "(a, b of one alone)" in error and not (tmp_path / "out").exists()
    shutil.copy(copies[0] / "split.json", copies[1])
    call(*arguments)
    rows = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert [row["num_volumes"] for row in rows] == [1, 1]
    assert (tmp_path / "out" / "comparison.png").is_file()


def test_labels_tell_runs_apart():
    assert labels(["runs/a", "runs/b/"]) == ["a", "b"]
    assert labels(["x/flat", "y/flat"]) == ["x_flat", "y_flat"]
    with pytest.raises(InputError, match="runs/a/../a is named twice"):
        labels(["runs/a", "runs/a/../a"])
