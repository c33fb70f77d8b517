"""Grids of runs: what is trained, what is taken from file, and tables that do not depend on it."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from flatjax import cli, config as configuration
from flatjax.data import DATASETS
from flatjax.errors import InputError, NonFiniteError, TrainingError
from flatjax.evaluation import figures
from flatjax.evaluation.statistics import paired_difference
from flatjax.experiments import outcomes, report as grid_report, run as runner
from flatjax.experiments.config_file import load_config_file
from flatjax.experiments.grid import Grid, Run, changed, label, trials
from flatjax.experiments.run import describe, run_grid
from flatjax.runs.checkpoint import Checkpoints
from tests.support import toy

ABLATE = Path(__file__).parents[2] / "configs" / "ablate.py"
NAMES = ("flat_parts", "loss_terms", "schedule", "steps", "solver", "parameterization", "sigma",
         "sharing", "acceleration", "alignment", "initialization", "teacher")


@pytest.fixture(autouse=True)
def toy_data(monkeypatch):
    monkeypatch.setitem(DATASETS, "toy", toy.make)


def small(broken=False, steps=2, **terms):
    loss = {f"loss.{term}": terms[term] for term in terms}
    return toy.experiment(method={"weights": "shared", "likelihood.sigma": 1.0,
                                  "schedule.steps": steps, **loss},
                          data=toy.config.data("toy", broken=broken) if broken else None,
                          evaluation=toy.config.evaluation(figures=0))


def small_grid(**runs):
    tried = {"": {}, "at K 3": {"method.schedule.steps": 3}}
    return Grid("Toy", {"aligned": Run(small(), tried), "unaligned": Run(small(velocity=0.0))}
                | runs, baseline="aligned")


def table(folder):
    return json.loads((folder / "table.json").read_text())


class Trainings:
    """Stands for `train`: counts, and interrupts one of them half way."""

    def __init__(self, monkeypatch, interrupted=None):
        self.names, self._train, self._interrupted = [], runner.train, interrupted
        monkeypatch.setattr(runner, "train", self)

    def __call__(self, config, workdir):
        self.names.append(workdir.name)
        if len(self.names) == self._interrupted:
            monkeypatch, checkpoint = pytest.MonkeyPatch(), Checkpoints.save

            def save(*args):
                checkpoint(*args)
                raise KeyboardInterrupt

            with monkeypatch.context() as patch:
                patch.setattr(Checkpoints, "save", save)
                self._train(config, workdir)
        return self._train(config, workdir)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A grid's workdir, made in one go."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(DATASETS, "toy", toy.make)
        run_grid(small_grid(), folder)
    return folder


def test_an_interrupted_grid_goes_on_and_ends_with_the_same_table(whole, tmp_path, monkeypatch):
    shutil.copytree(whole / "aligned_seed0", tmp_path / "aligned_seed0")
    trainings = Trainings(monkeypatch, interrupted=1)
    with pytest.raises(KeyboardInterrupt):
        run_grid(small_grid(), tmp_path)
    assert trainings.names == ["unaligned_seed0"]
    assert {row["run"] for row in table(tmp_path / "results")} == {"aligned", "aligned, at K 3"}
    dry = describe(small_grid(), tmp_path)
    assert "| aligned_seed0 | flat | " in dry and "| 4 | done | 0.0 |" in dry
    assert "| 4 | at step 2 | " in dry
    run_grid(small_grid(), tmp_path)
    assert trainings.names[1:] == ["unaligned_seed0"]
    assert table(tmp_path / "results") == table(whole / "results")


def test_published_results_stand_in_for_their_runs(whole, tmp_path, monkeypatch):
    trainings = Trainings(monkeypatch)
    run_grid(small_grid(), tmp_path, whole / "results")
    assert trainings.names == []
    grid = small_grid()
    other = grid._replace(runs={"aligned": Run(small(steps=3))})
    assert outcomes.outcome(trials(grid)[0], "", whole / "results")
    assert not outcomes.outcome(trials(other)[0], "", whole / "results"), "of another config"
    scores = whole / "results" / "runs" / "aligned_seed0.json"
    text = scores.read_text()
    scores.write_text(text[:100])
    assert not outcomes.outcome(trials(grid)[0], "", whole / "results"), "cut short"
    scores.write_text(text)


def test_grids_share_the_runs_that_they_have_in_common(whole, tmp_path):
    shutil.copytree(whole / "results", tmp_path / "first")
    (tmp_path / "first" / "runs" / "unaligned_seed0.json").write_text("{}")
    grid = Grid("Other", {"base": Run(small()), "other": Run(small(velocity=0.0))}, "base")
    outcomes.reuse_results(trials(grid), tmp_path / "second")
    assert outcomes.outcome(trials(grid)[0], "", tmp_path / "second")
    assert not outcomes.outcome(trials(grid)[1], "", tmp_path / "second")


def test_the_table_says_what_the_evaluations_said(whole):
    rows = {(row["test_set"], row["run"]): row for row in table(whole / "results")}
    assert rows.keys() == {(a, b) for a in ("main", "other")
                           for b in ("aligned", "aligned, at K 3", "unaligned")}
    folder = whole / "unaligned_seed0" / "evaluations" / "plain"
    metrics = json.loads((folder / "metrics.json").read_text())
    row = rows["main", "unaligned"]
    assert row["psnr"] == metrics["method"]["psnr"]["mean"] and row["nfe"] == 2
    assert rows["main", "aligned, at K 3"]["nfe"] == 3

    def scores(name):
        path = whole / f"{name}_seed0" / "evaluations" / "plain" / "slices.csv"
        return np.array([float(line["psnr"]) for line in csv.DictReader(path.open())])

    expected = paired_difference(scores("unaligned"), scores("aligned"))
    assert row["psnr_difference_mean"] == pytest.approx(expected.mean, abs=1e-5)
    assert row["psnr_difference_low"] == pytest.approx(expected.low, abs=1e-5)
    assert row["psnr_std"] == pytest.approx(np.std(scores("unaligned")), abs=1e-5)
    text = (whole / "results" / "table.md").read_text()
    assert f"| unaligned | {row['psnr']:.2f} ± {row['psnr_std']:.2f} | " in text
    assert "evaluations of" not in text
    assert (whole / "results" / "table.csv").read_text().count("\n") == 7
    assert (whole / "results" / "figure.png").stat().st_size > 10_000


def test_the_table_tells_the_residual_and_what_every_row_starts_from(whole):
    lines = [row for row in grid_report.make_rows(small_grid(), whole / "results")
             if row.test_set == "main"]
    text = grid_report.markdown(small_grid(), lines)
    start = lines[0].metrics[0]["zero_filled"]["psnr"]["mean"]
    residual = lines[0].metrics[0]["measurement_residual"]
    assert f"; zero-filled: {start:.2f} dB" in text and "| zero-filled (dB) |" not in text
    assert f" | {residual:.1e} | " in text and residual > 0
    other = json.loads(json.dumps(lines[1].metrics))
    other[0]["zero_filled"]["psnr"]["mean"] = 1.25  # as under another acceleration
    lines[1] = lines[1]._replace(metrics=tuple(other))
    text = grid_report.markdown(small_grid(), lines)
    assert "; zero-filled: " not in text and "| run | zero-filled (dB) |" in text
    assert f"| {lines[1].label} | 1.25 | " in text and f"| aligned | {start:.2f} | " in text


def test_a_run_may_have_a_baseline_of_its_own(whole):
    grid = small_grid()
    grid.runs["unaligned"] = grid.runs["unaligned"]._replace(baseline="aligned, at K 3")
    one, three, own = [row for row in grid_report.make_rows(grid, whole / "results")
                       if row.test_set == "main"]
    assert one.against is None and three.baseline == "aligned"
    expected = paired_difference(own.metrics[0]["slices"]["psnr"],
                                 three.metrics[0]["slices"]["psnr"])
    assert own.against["psnr"] == expected
    text = grid_report.markdown(grid, [one, three, own])
    assert "| baseline | PSNR - baseline |" in text and "PSNR - aligned" not in text
    assert f" | aligned, at K 3 | {expected.mean:+.2f} [" in text
    rows = grid_report.make_rows(small_grid(), whole / "results")
    text = grid_report.markdown(small_grid(), rows)
    assert "| PSNR - aligned |" in text and "| baseline |" not in text


def dots(axes):
    """The large markers of axes, `[number, 2]`."""
    return np.concatenate([line.get_xydata() for line in axes.lines if line.get_marker() in "os"])


def test_the_figure_has_a_line_for_every_run_and_an_axis_that_makes_little_look_little(whole):
    lines = grid_report.make_rows(small_grid(), whole / "results")
    figure = grid_report.draw(small_grid(), lines)
    assert len(figure.axes) == 2 * 4, "two test sets"
    psnr, ssim, evaluations, along = figure.axes[:4]
    own = [row for row in lines if row.test_set == "main"]
    assert [text.get_text() for text in psnr.get_yticklabels()] == [row.label for row in own]
    np.testing.assert_allclose(dots(evaluations), [[2, 0], [3, 1], [2, 2]])
    for key, axes, least in (("psnr", psnr, 1), ("ssim", ssim, 0.02)):
        np.testing.assert_allclose(dots(axes)[:, 0], [row.mean("method", key, "mean")
                                                      for row in own])
        assert np.diff(axes.get_xlim()) >= 0.999 * least
    assert len([line for line in along.lines if line.get_marker() == "."]) == 3
    alike = [row for row in lines if row.label != "aligned, at K 3"]
    assert len(grid_report.draw(small_grid(), alike).axes) == 2 * 3, "nothing to tell"


def test_budgets_of_a_run_share_its_line_and_its_color_as_larger_dots(whole):
    first, other = [row for row in grid_report.make_rows(small_grid(), whole / "results")
                    if row.test_set == "main" and "K 3" not in row.label]
    longer = first._replace(label="aligned 3x", trained=first.trained | {"train.steps": 99},
                            evaluated=first.evaluated | {"train.steps": 99})
    figure = grid_report.draw(small_grid(), [first, longer, other])
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["aligned", "unaligned"]
    np.testing.assert_array_equal(dots(axes)[:, 1], [0, 0, 1])
    assert axes.lines[1].get_markersize() > axes.lines[0].get_markersize()
    assert axes.lines[1].get_color() == axes.lines[0].get_color() == figures.look("flat")["color"]
    assert "small to large: 4, 99 updates" in figure.get_suptitle()


def test_runs_of_many_steps_are_curves_over_network_evaluations(whole):
    first, more, _ = [row for row in grid_report.make_rows(small_grid(), whole / "results")
                      if row.test_set == "main"]
    other = first._replace(label="by heun", evaluated=first.evaluated | {"method.solver": "heun"})
    figure = grid_report.draw(small_grid(), [first, more, other, other])
    psnr, ssim = figure.axes
    assert ssim.get_ylabel() == "main: SSIM"
    curve, trained, longer, *_, alone = [line for line in psnr.lines if len(line.get_xdata())]
    np.testing.assert_allclose(curve.get_xydata(), [
        [row.mean("nfe") / 1.03, row.mean("method", "psnr", "mean")] for row in (first, more)])
    assert curve.get_color() == trained.get_markerfacecolor() != alone.get_color()
    assert longer.get_markerfacecolor() == alone.get_markerfacecolor() == "white"
    assert [text.get_text() for text in psnr.get_xticklabels()] == ["3", "2"]
    legend, = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["euler", "heun"]


def test_methods_are_curves_beside_each_other_for_every_number_of_samples(whole):
    flat = [row for row in grid_report.make_rows(small_grid(), whole / "results")
            if row.test_set == "main"][:2]
    rows = flat + [row._replace(
        label=f"dds {row.label}, {samples}",
        metrics=({**row.metrics[0], "method": {**row.metrics[0]["method"], "name": "dds"}},),
        evaluated=row.evaluated | {"method.name": "dds", "method.samples": samples})
        for samples in (1, 4) for row in flat]
    figure = grid_report.draw(small_grid(), rows)
    assert [axes.get_title() for axes in figure.axes] == ["1 sample", "4 samples"] * 2
    for pair in zip(*[iter(figure.axes)] * 2, strict=True):
        assert pair[0].get_ylim() == pair[1].get_ylim()
        assert all(len([line for line in axes.lines if len(line.get_xdata()) == 2]) == 2
                   for axes in pair), "FLAT, which draws none, beside all"


def test_an_evaluation_that_changes_nothing_on_a_set_has_no_second_row_there(whole, tmp_path):
    shutil.copytree(whole / "results", tmp_path / "results")
    same, other = (tmp_path / "results" / "runs" / f"{name}.json" for name in (
        "aligned_seed0", "aligned_seed0_at K 3"))
    first, second = (json.loads(path.read_text()) for path in (same, other))
    second["sets"]["other"] = first["sets"]["other"]
    other.write_text(json.dumps(second))
    rows = grid_report.make_rows(small_grid(), tmp_path / "results")
    assert [(row.label, row.test_set) for row in rows] == [
        (label, name) for name, labels in (
            ("main", ("aligned", "aligned, at K 3", "unaligned")),
            ("other", ("aligned", "unaligned"))) for label in labels]


def test_seeds_are_averaged_slice_by_slice(whole, tmp_path):
    """Against numbers worked out by hand from two seeds on file."""
    grid = small_grid()._replace(seeds=(0, 1))
    del grid.runs["aligned"].evaluations["at K 3"]
    for trial in trials(grid):
        found = outcomes.outcome(trials(small_grid())[0], "", whole / "results")
        plain = json.loads(configuration.to_json(trial.config))
        sets = json.loads(json.dumps({"main": found.sets["main"]}))
        shift = 0.5 * trial.seed + (trial.run == "unaligned")
        sets["main"]["slices"]["psnr"] = [x + shift for x in sets["main"]["slices"]["psnr"]]
        sets["main"]["method"]["psnr"]["mean"] += shift
        path = tmp_path / "runs" / f"{trial.name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(found._replace(trained=plain, evaluated=plain,
                                                  sets=sets)._asdict()))
    run_grid(grid, tmp_path / "unused", tmp_path)
    aligned, unaligned = table(tmp_path)
    assert unaligned["seeds"] == "0 1"
    assert unaligned["psnr"] - aligned["psnr"] == pytest.approx(1)
    assert aligned["psnr_max"] - aligned["psnr_min"] == pytest.approx(0.5)
    assert [unaligned[f"psnr_difference_{end}"] for end in ("mean", "low", "high")] == (
        pytest.approx([1, 1, 1]))
    (tmp_path / "runs" / "unaligned_seed1.json").unlink()
    grid.runs["unaligned"] = grid.runs["unaligned"]._replace(seeds=(0,))
    run_grid(grid, tmp_path / "unused", tmp_path)
    assert table(tmp_path)[1]["psnr_difference_mean"] == pytest.approx(1 - 0.5 / 2)


def test_a_run_that_breaks_is_named_and_the_others_finish(whole, tmp_path):
    shutil.copytree(whole / "aligned_seed0", tmp_path / "aligned_seed0")
    grid = Grid("Toy", {"broken": Run(small(broken=True)), "aligned": Run(small())}, "aligned")
    with pytest.raises(TrainingError, match="1 of 2 runs failed: broken_seed0: .*step 1"):
        run_grid(grid, tmp_path)
    assert {row["run"] for row in table(tmp_path / "results")} == {"aligned"}
    assert "1 of 2 evaluations" in (tmp_path / "results" / "table.md").read_text()


def test_an_evaluation_that_is_not_finite_is_named_and_the_others_finish(whole, tmp_path,
                                                                         monkeypatch):
    for name, source in (("aligned", "aligned"), ("unaligned", "unaligned"), ("last", "aligned")):
        shutil.copytree(whole / f"{source}_seed0", tmp_path / f"{name}_seed0")

    def evaluate(trained, *folders):
        if not trained.method.loss.velocity:
            raise NonFiniteError("the reconstruction of a is not finite")
        return grids_evaluate(trained, *folders)

    grids_evaluate = runner.evaluate_sets
    monkeypatch.setattr(runner, "evaluate_sets", evaluate)
    grid = small_grid(last=Run(small()))
    with pytest.raises(TrainingError, match="1 of 3 runs failed: unaligned_seed0: .*not finite"):
        run_grid(grid, tmp_path)
    assert {row["run"] for row in table(tmp_path / "results")} == {
        "aligned", "aligned, at K 3", "last"}


def test_a_folder_is_not_taken_for_another_configs_run(whole, tmp_path, monkeypatch):
    """Not even where all that is left to do is an evaluation."""
    workdir = shutil.copytree(whole, tmp_path / "runs")
    shutil.rmtree(workdir / "results")
    trainings = Trainings(monkeypatch)
    other = Grid("Toy", {"aligned": Run(small(velocity=0.3))}, "aligned")
    with pytest.raises(
        InputError, match="checkpoints of another config .method.loss.velocity: 0.1"
    ):
        run_grid(other, workdir)
    longer = changed(small(), {"train.steps": 8})  # which a run alone goes on to
    with pytest.raises(InputError, match="train.steps: 4 there, 8 here"):
        run_grid(Grid("Toy", {"aligned": Run(longer)}, "aligned"), workdir)
    run_grid(Grid("Toy", {"aligned": Run(small(), {"": {"evaluation.batch_size": 1}})}, "aligned"),
             workdir)
    assert not trainings.names and len(table(workdir / "results")) == 2


@pytest.mark.parametrize("name", NAMES)
def test_every_ablation_can_run(name):
    grid = load_config_file(f"{ABLATE}:{name}")
    labels = {label(run, evaluation) for run, one in grid.runs.items()
              for evaluation in one.evaluations}
    assert grid.baseline in labels and len(grid.runs) > 1
    for trial in trials(grid):
        for config in trial.evaluations.values():
            configuration.make_method(config)
            configuration.make_acquisition(config)
    different = {configuration.to_json(trial.config) for trial in trials(grid)}
    assert len(different) == len(trials(grid)), "no run is made twice"


def test_the_eight_cells_differ_by_what_they_are_called():
    grid = load_config_file(f"{ABLATE}:flat_parts")
    assert len(grid.runs) == 8 and len(grid.seeds) >= 2
    for name, run in grid.runs.items():
        method = run.config.method
        learned = method.get("learned", "none")
        assert ("timesteps" in name) == (learned in ("none", "eta"))
        assert ("parameters" in name) == (learned in ("none", "timesteps"))
        assert ("alignment" in name) == (method.loss.velocity > 0)


def test_the_command_line_runs_describes_and_refuses(tmp_path, capsys):
    def command(*argv):
        cli.main(["train", *argv])

    command(f"--config={ABLATE}:flat_parts", f"--workdir={tmp_path}", "--dry-run",
            "--config.train.steps=50")
    printed = capsys.readouterr().out
    assert "| vanilla_seed1 | vanilla | " in printed and "| 50 | to train | ? |" in printed
    assert "16 runs" in printed and not list(tmp_path.iterdir())
    for argv, match in (([f"--config={ABLATE}:parts"], "the ablation is 'parts'"),
                        ([f"--config={ABLATE}"], "the ablation is ''"),
                        ([f"--config={ABLATE}:steps", "--config.train.step=1"], "did you mean")):
        with pytest.raises(SystemExit) as stopped:
            command(*argv, f"--workdir={tmp_path}")
        error = capsys.readouterr().err
        assert stopped.value.code == 2 and match in error and error.count("\n") == 1


def test_changes_are_of_keys_that_there_are():
    config = small()
    assert changed(config, {"method.schedule.steps": 5}).method.schedule.steps == 5
    assert config.method.schedule.steps == 2
    for change in ({"method.schedule.step": 5}, {"method.schedule.steps": "five"}):
        with pytest.raises(InputError, match="cannot be set"):
            changed(config, change)
