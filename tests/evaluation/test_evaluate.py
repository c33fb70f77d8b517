"""Evaluation: scores against the metrics, files, figures, and the way to bad input's one line."""

import gc
import json
import re
import weakref
from contextlib import closing

import h5py
import jax
import matplotlib.pyplot as plt
import nibabel
import numpy as np
import pytest
from PIL import Image

from flatjax import cli, config
from flatjax.data import DATASETS, Acquisition
from flatjax.data.batches import measure_volume, padded_batches
from flatjax.errors import InputError
from flatjax.evaluation import evaluate as evaluation, figures, metrics, scoring, tables
from flatjax.evaluation.evaluate import evaluate
from flatjax.evaluation.scoring import measures_of, score_volume, scorer, summary
from flatjax.experiments.config_file import override
from flatjax.experiments.grid import changed
from flatjax.methods import METHODS, zero_filled
from flatjax.runs.checkpoint import Checkpoints
from flatjax.runs.weights import expected_params
from flatjax.runs.workdir import at_test_time, load_config
from flatjax.training.parallel import TrainState
from flatjax.training.train import train
from tests.support import toy
from tests.support.arrays import noisy
from tests.support.browser import contents
from tests.support.untrained import workdir as untrained


@pytest.fixture(autouse=True)
def toy_data(monkeypatch):
    monkeypatch.setitem(DATASETS, "toy", toy.make)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A trained workdir, evaluated once."""
    patch = pytest.MonkeyPatch()
    patch.setitem(DATASETS, "toy", toy.make)
    workdir = tmp_path_factory.mktemp("run")
    train(toy.experiment(), workdir)
    results = evaluate(load_config(workdir), workdir)
    patch.undo()
    return workdir, results


def test_metrics_json_has_the_documented_schema(run):
    workdir, results = run
    saved = json.loads((workdir / "eval" / "metrics.json").read_text())
    assert saved == json.loads(json.dumps(results["main"]))
    assert saved["method"]["name"] == "flat"
    for images in ("method", "zero_filled"):
        for key in ("psnr", "ssim", "nmse", "psnr_object", "ssim_object"):
            assert saved[images][key].keys() == {"mean", "std"}
    assert saved["acceleration"].keys() == {"nominal", "achieved"}
    assert len(saved["psnr_per_step"]) == saved["nfe"] + 1 == 3
    assert saved["psnr_per_step"][0] == pytest.approx(saved["zero_filled"]["psnr"]["mean"])
    assert saved["psnr_per_step"][-1] == pytest.approx(saved["method"]["psnr"]["mean"])
    assert saved["num_slices"] == 6 and saved["num_volumes"] == 2
    assert saved["seconds_per_slice"] > 0 and 0 <= saved["straightness"] <= 1
    assert {"psnr_drops", "measurement_residual", "config_hash", "device"} <= saved.keys()
    other = json.loads((workdir / "eval" / "other" / "metrics.json").read_text())
    assert other["num_slices"] == 3


def test_the_files_hold_what_the_scores_say(run):
    workdir, results = run
    rows = (workdir / "eval" / "metrics.csv").read_text().splitlines()
    header = rows[0].split(",")
    assert [row.split(",")[0] for row in rows[1:]] == ["a", "b"]
    scores = []
    for row, volume in zip(rows[1:], toy.make().test["main"], strict=True):
        with h5py.File(workdir / "eval" / "reconstructions" / f"{volume.name}.h5") as file:
            images = file["reconstruction"][:]
        target = np.stack([sample.target for sample in volume.load()])
        assert images.shape == target.shape and images.dtype == np.float32
        scores.append(metrics.psnr(prediction=images, target=target))
        assert float(row.split(",")[header.index("psnr")]) == pytest.approx(scores[-1])
        inside = metrics.psnr(prediction=images, target=target, mask=metrics.object_mask(target))
        assert float(row.split(",")[header.index("psnr_object")]) == pytest.approx(inside)
    assert np.mean(scores) == pytest.approx(results["main"]["method"]["psnr"]["mean"])


def test_figures_are_drawn_and_not_empty(run):
    workdir, _ = run
    names = {path.name for path in (workdir / "eval").glob("*.png")}
    assert names == {"comparison_a.png", "comparison_b.png", "trajectory.png"}
    for name in names:
        assert plt.imread(workdir / "eval" / name)[..., :3].std() > 0.05


def test_each_set_has_a_report_of_its_slices_whose_scores_are_those_of_the_tables(run):
    workdir, results = run
    report = contents(workdir / "eval" / "report.html")
    assert [one["name"] for one in report["slices"]] == [
        f"{name}, slice {index} of 3" for name in "ab" for index in (1, 2, 3)]
    _, start, states = report["slices"][0]["panels"]
    assert [one["step"] for one in states] == [0, 1, 2] and states[0]["image"] == start[0]["image"]
    row = (workdir / "eval" / "slices.csv").read_text().splitlines()[1].split(",")
    assert states[-1]["psnr"] == pytest.approx(float(row[2]), abs=1e-4)
    assert states[-1]["ssim"] == pytest.approx(float(row[3]), abs=1e-4)
    table, = report["tables"]
    assert table["rows"][1][0] == "flat" and table["rows"][1][1].startswith(
        f"{results['main']['method']['psnr']['mean']:.2f}")
    assert len(contents(workdir / "eval" / "other" / "report.html")["slices"]) == 3


def scored_zero_filling(name="a"):
    method = zero_filled()
    volume = next(v for v in toy.make().test["main"] if v.name == name)
    return score_volume(scorer(method, "sense"), {}, jax.random.key(0), name,
                        measure_volume(volume, Acquisition()), batch_size=2)


def images_of(figure):
    """The images that a figure shows, in gray and in the colors of errors."""
    images = [one for axes in figure.axes for one in axes.images]
    return ([one for one in images if one.get_cmap().name == "gray"],
            [one for one in images if one.get_cmap().name == "magma"])


def test_windows_are_shared_and_errors_end_where_the_methods_do():
    scored = scored_zero_filling()
    better = (0.3 * scored.zero_filled + 0.7 * scored.target).astype(np.float32)
    figure = figures.comparison(scored._replace(reconstruction=better).at(1), "flat")
    gray, errors = images_of(figure)
    assert len(gray) == 3 and len(errors) == 2
    assert {one.get_clim() for one in gray} == {(0, float(scored.target[1].max()))}
    np.testing.assert_array_equal(gray[0].get_array(), scored.target[1])
    start, own = (one.get_array().data for one in errors)
    assert {one.get_clim() for one in errors} == {(0, np.percentile(own, 99.9))}
    assert start.max() > errors[0].get_clim()[1], "zero filling saturates"
    bar, = (bar for axes in figure.axes for bar in axes.child_axes)
    assert [text.get_text() for text in bar.get_xticklabels()] == [
        "0", f"{np.percentile(own, 99.9):.2g}"]
    plt.close(figure)


def test_one_wild_image_does_not_hide_the_errors_of_the_others():
    target = np.ones((8, 9), np.float32)
    images = {"a": 1.1 * target, "b": 0.9 * target, "wild": 9 * target}
    figure = plt.figure()
    figures.panels(figure, images, target, judged=images)
    assert images_of(figure)[1][0].get_clim() == (0, pytest.approx(0.1, rel=1e-5))
    plt.close(figure)


def test_a_figure_is_a_png_of_few_colors_and_a_pdf_as_wide_as_a_page(tmp_path):
    figures.save(figures.row([figures.Panel(np.eye(9), "a", 0, 1)] * 2, "b"), tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as image:
        assert image.mode == "P" and image.width == pytest.approx(180 / 25.4 * 220, abs=1)
    found = (tmp_path / "x.pdf").read_bytes()
    width, _ = re.search(rb"/MediaBox \[ 0 0 (\S+) (\S+) \]", found).groups()
    assert float(width) == pytest.approx(180 / 25.4 * 72, abs=0.1)


def test_every_method_has_a_color_and_marker_of_its_own():
    looks = [tuple(figures.look(method).values()) for method in METHODS]
    assert len(set(looks)) == len(METHODS) and len({color for color, _ in looks}) <= 8


def test_the_figure_of_a_volume_shows_every_state_of_its_slice():
    scored = scored_zero_filling()
    states = np.stack([scored.zero_filled, 0.5 * scored.target, scored.target])
    scored = scored._replace(states=states, steps=np.array([0, 2, 5]))
    figure = figures.comparison(scored.at(1), "flat")
    titles = [axes.get_title().split("\n")[0] for axes in figure.axes if axes.get_title()]
    assert titles == ["target", "zero-filled", "step 2", "step 5", "flat"]
    gray, errors = images_of(figure)
    np.testing.assert_array_equal(gray[2].get_array(), states[1, 1])
    assert errors[2].get_array().max() == 0
    plt.close(figure)


def test_panels_are_in_rows_of_even_length_each_image_above_its_error():
    target, *others = np.random.default_rng(0).uniform(1, 2, (10, 8, 9)).astype(np.float32)
    images = {str(at): image for at, image in enumerate(others)}
    figure = plt.figure()
    figures.panels(figure, images, target, judged="3")
    rows = np.array([axes for axes in figure.axes if axes.get_label() != "<colorbar>"],
                    object).reshape(4, 5)
    peak = float(target.max())
    largest = np.percentile(np.abs(images["3"] - target) / peak, 99.9)
    for at, (name, image) in enumerate([("target", target), *images.items()]):
        above, below = rows[2 * (at // 5), at % 5], rows[2 * (at // 5) + 1, at % 5]
        assert above.get_title().split("\n")[0] == name
        assert above.images[0].get_clim() == (0, peak)
        np.testing.assert_array_equal(above.images[0].get_array(), image)
        if name == "target":
            assert not below.images
        else:
            assert below.images[0].get_clim() == (0, pytest.approx(largest))
            np.testing.assert_allclose(below.images[0].get_array(), np.abs(image - target) / peak,
                                       rtol=1e-6)
    plt.close(figure)


def test_zero_filling_scores_as_itself_and_without_residual():
    scored = scored_zero_filling()
    np.testing.assert_allclose(scored.reconstruction, scored.zero_filled)
    assert scored.residual.max() == 0 and (scored.straightness == 1).all()
    out = summary([measures_of(scored)], "zero_filled", 4.0)
    assert out["nfe"] == 0 and out["psnr_drops"] == 0 and out["path_distance_per_step"] == [0]


def test_the_deviation_of_posterior_samples_is_saved_and_drawn(tmp_path):
    plain = zero_filled()

    def reconstruct(*args, **options):
        result = plain.reconstruct(*args, **options)
        return result._replace(std=0.1 * result.image)

    uncertain = plain._replace(reconstruct=reconstruct)
    volume = toy.make().test["main"][0]
    scored = score_volume(scorer(uncertain, "sense"), {}, jax.random.key(0), "a",
                          measure_volume(volume, Acquisition()), batch_size=2)
    np.testing.assert_allclose(scored.std, 0.1 * scored.reconstruction, rtol=1e-5)
    evaluation._save(tmp_path, scored)
    with h5py.File(tmp_path / "reconstructions" / "a.h5") as file:
        np.testing.assert_array_equal(file["std"], scored.std)
    figure = figures.comparison(scored.at(1), "zero_filled")
    _, maps = images_of(figure)
    assert len(maps) == 3 and len({one.get_clim() for one in maps}) == 1
    plt.close(figure)
    assert scored_zero_filling().std is None


def test_evaluation_masks_and_noise_belong_to_the_volumes_name():
    volumes = toy.make().test["main"]
    first, again = (measure_volume(volumes[0], Acquisition(noise=0.1)) for _ in range(2))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a.measurement.kspace, b.measurement.kspace)
        np.testing.assert_array_equal(a.measurement.mask, first[0].measurement.mask)
    other = measure_volume(volumes[1], Acquisition(noise=0.1))
    assert (other[0].measurement.mask != first[0].measurement.mask).any()
    batches = list(padded_batches(first, 2))
    assert [count for _, count in batches] == [2, 1]
    assert all(batch.target.shape[0] == 2 for batch, _ in batches)


def command(capsys, *arguments):
    """Exit status and the one line on stderr of a command line."""
    with pytest.raises(SystemExit) as left:
        cli.main([*map(str, arguments)])
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1 and "Traceback" not in errors[0]
    return left.value.code, errors[0]


@pytest.mark.parametrize(
    "arguments, match",
    [
        (
            ["--config=demo", "--config.method.schedule.stps=3"],
            "did you mean --config.method.schedule.steps",
        ),
        (["--config=demo", "--config.method.schedule.steps=two"], "invalid literal"),
        (["--config=demo", "--config.method.schedule.steps=0"], "steps is 0"),
        (["--config=demo", "--config.method.schedule.alpha=-1"], "alpha is -1"),
        (["--config=demo", "--config.method.likelihood.sigma=0"], "sigma is 0"),
        (
            ["--config=demo", "--config.method.likelihood.sigma=inf"],
            "method.likelihood.sigma is inf, expected a finite",
        ),
        (["--config=demo", "--config.acquisition.noise=inf"], "acquisition.noise is inf"),
        (
            ["--config=demo:unet", "--config.method.loss.ssim=0", "--config.method.loss.l1=0"],
            "are all 0",
        ),
        (["--config=singlecoil", "--config.method.likelihood.sigma=0.2"],
         "expected below 2"),
        (["--config=demo", "--config.acquisition.acceleration=0.5"], "acceleration"),
        (["--config=demo", "--config.acquisition.noise=-1"], "noise is -1"),
        (["--config=demo", "--config.acquisition.mask=spiral"], "spiral"),
        (
            [
                "--config=demo",
                "--config.acquisition.mask=magic",
                "--config.acquisition.center_fraction=0.25",
            ],
            "magic",
        ),
        (["--config=demo", "--config.train.batch_size=3"], "not divisible by 4 devices"),
        (["--config=demo", "--config.data.name=knee"], "expected one of .*icbm"),
        (["--config=demo", "--config.method.name=magic"], "expected one of .*flat"),
        (
            ["--config=demo:flow_matching", "--config.method.schedule.steps=0"],
            "steps is 0, expected at least 1",
        ),
        (["--config=demo:score_sde", "--config.method.steps=0"], "steps is 0, expected at least 1"),
        (
            ["--config=demo:mc_ddpm", "--config.method.steps=1001"],
            "steps is 1001, expected .* to 1000",
        ),
        (
            ["--config=demo:mc_ddpm", "--config.method.eta=-0.1"],
            r"eta is -0.1, expected in \[0, 1\]",
        ),
        (["--config=demo:dds", "--config.method.steps=0"], "steps is 0, expected from 1 to 1000"),
        (["--config=demo:dds", "--config.method.eta=1.5"], r"eta is 1.5, expected in \[0, 1\]"),
        (
            ["--config=demo:dds", "--config.method.cg_iterations=0"],
            "cg_iterations is 0, expected at",
        ),
        (
            ["--config=demo:modl", "--config.method.space.cg_iterations=0"],
            "cg_iterations is 0, expected at",
        ),
        (["--config=demo:modl", "--config.method.steps=0"], "steps is 0, expected at least 1"),
        (["--config=demo:varnet", "--config.method.steps=0"], "steps is 0, expected at least 1"),
        (["--config=nothing"], "expected the path of a Python file .* or one of .*demo"),
        (["--config=demo", "surplus"], "unexpected argument 'surplus'"),
        ([], "--config is missing"),
    ],
)
def test_bad_training_input_gets_one_line_and_status_2(capsys, tmp_path, arguments,
                                                       match):
    code, line = command(capsys, "train", f"--workdir={tmp_path / 'run'}",
                         *arguments)
    assert code == 2 and not (tmp_path / "run").exists()
    assert re.search(match, line), line


def test_bad_config_files_get_one_line(capsys, tmp_path):
    for text, expected in [("x = 1", "KeyError: 'get_config'"),
                           ("def get_config(): return 3", "returned a int"),
                           ("import nothing_like_it", "No module named"), ("def (", "SyntaxError")]:
        path = tmp_path / "config.py"
        path.write_text(text)
        code, line = command(capsys, "train", f"--config={path}",
                             f"--workdir={tmp_path / 'run'}")
        assert code == 2 and expected in line


def test_bad_evaluation_input_gets_one_line_and_status_2(capsys, tmp_path, run):
    workdir, _ = run

    def fails(*arguments):
        return command(capsys, "evaluate", *arguments)

    code, line = fails(f"--workdir={tmp_path / 'none'}")
    assert code == 2 and "no config in" in line
    code, line = fails(f"--workdir={workdir}", "--config.evaluation.checkpoint=77")
    assert code == 2 and "checkpoint is '77'" in line
    code, line = fails(f"--workdir={workdir}", "--config.method.name=varnet")
    assert code == 2 and "method.name is 'varnet' but 'flat' in training" in line
    code, line = fails(f"--workdir={workdir}", "--config.method.network.channels=3")
    assert code == 2 and "method.network.channels is 3 but 2 in training" in line
    for option in ("schedule.steps=6", "schedule.alpha=0.5", "solver=heun",
                   "schedule.times=(1.0,0.3,0.0)"):
        code, line = fails(f"--workdir={workdir}", f"--config.method.{option}")
        assert code == 2 and re.search(f"method.{option.split('=')[0]} is .* in training: weights "
                                       "per cascade belong to the steps", line), line
    (tmp_path / "file").write_text("")
    code, line = fails(f"--workdir={workdir}", f"--output={tmp_path / 'file'}")
    assert code == 2 and "cannot write to the folder" in line
    (tmp_path / "config.json").write_text('{"seed": 3}')
    code, line = fails(f"--workdir={tmp_path}")
    assert code == 2 and "not a config that flatjax wrote" in line
    (tmp_path / "config.json").write_bytes((workdir / "config.json").read_bytes())
    code, line = fails(f"--workdir={tmp_path}")
    assert code == 2 and "no checkpoint in" in line


def test_few_states_are_scored_and_every_volume_is_measured_once(run, tmp_path, monkeypatch):
    workdir, results = run
    measured = []
    monkeypatch.setattr(evaluation, "measure_volume", lambda volume, *rest: (
        measured.append(volume.name), measure_volume(volume, *rest))[1])
    monkeypatch.setattr(scoring, "STATES", 2)
    thinned = evaluate(load_config(workdir), workdir, tmp_path)
    assert measured == ["a", "b", "c"]
    whole, part = results["main"], thinned["main"]
    assert whole["steps"] == [0, 1, 2] and part["steps"] == [0, 2]
    assert part["psnr_per_step"] == pytest.approx(whole["psnr_per_step"][::2])
    assert part["path_distance_per_step"] == pytest.approx(
        whole["path_distance_per_step"][::2], rel=1e-4)
    assert part["method"]["psnr"] == pytest.approx(whole["method"]["psnr"])
    assert part["straightness"] == 1


@pytest.fixture
def shared(tmp_path_factory):
    """A workdir with random weights shared by its two steps."""
    workdir = tmp_path_factory.mktemp("shared")
    experiment = toy.experiment(method={"weights": "shared"}, evaluation=config.evaluation(
        figures=0, batch_size=3))
    (workdir / "config.json").write_text(config.to_json(experiment))
    batch, _ = next(padded_batches(measure_volume(toy.make().test["other"][0], Acquisition()), 1))
    init = jax.jit(config.make_method(experiment).init)
    params = noisy(init(jax.random.key(0), batch), 0.3)
    with closing(Checkpoints(workdir, "psnr", create=True)) as checkpoints:
        checkpoints.save(1, TrainState(np.int32(1), params, {}, {}), {"psnr": 0.0})
    return workdir


def test_shared_weights_are_evaluated_at_other_steps(shared, tmp_path):
    """Many steps and adaptive ones solve the same flow, which is that of the training."""
    found = {}
    for name, options in {
        "many": ["schedule.steps=50"],
        "adaptive": ["schedule.steps=5", "solver=adaptive", "tolerance=1e-4"],
    }.items():
        asked = override(load_config(shared), [f"--config.method.{o}" for o in options])
        found[name] = evaluate(asked, shared, tmp_path / name)["main"]
    assert found["many"]["nfe"] == 50 and found["adaptive"]["nfe"] > 10
    many, adaptive = (found[name]["psnr_per_step"] for name in ("many", "adaptive"))
    np.testing.assert_allclose(many[::10], adaptive, atol=0.03)
    assert abs(adaptive[-1] - adaptive[0]) > 0.3  # ten times the tolerance


def test_the_noise_scale_of_the_training_stays_with_other_steps():
    trained = toy.experiment(method={"weights": "shared", "schedule.steps": 4})
    asked = toy.experiment(method={"weights": "shared", "schedule.steps": 9})
    assert (
        at_test_time(asked, trained).method.likelihood.sigma == 0.5
        and asked.method.likelihood.sigma is None
    )
    assert at_test_time(trained, trained).method.likelihood.sigma is None
    asked.method.likelihood.sigma = 0.7
    assert at_test_time(asked, trained).method.likelihood.sigma == 0.7


@pytest.mark.parametrize("trained, asked", [
    ("score_sde", "dds"), ("flow_matching", "mc_ddpm"), ("mc_ddpm", "flow_matching")])
def test_weights_are_not_taken_for_those_of_another_method(trained, asked):
    """Which they fit by their shapes."""
    own, other = (config.experiment(method=config.method(name)) for name in (trained, asked))
    shapes = [jax.tree.map(lambda leaf: leaf.shape, expected_params(config.make_method(one)))
              for one in (own, other)]
    assert shapes[0] == shapes[1]
    with pytest.raises(InputError, match=f"method.name is '{asked}' but '{trained}' in training"):
        at_test_time(other, own)


@pytest.mark.parametrize("name, key, value", [
    ("flat", "parameterization", "endpoint"), ("dds", "prediction", "noise"),
    ("flow_matching", "tau", 0.3), ("score_sde", "sigma_max", 100.0),
    ("score_sde", "sigma_min", 0.1), ("varnet", "network.name", "plain"),
    ("flat", "network.channels", 3), ("flat", "space.name", "image"),
    ("flow_matching", "data_consistency", False)])
def test_what_a_network_was_trained_for_cannot_be_changed(name, key, value):
    own = config.experiment(method=config.method(name))
    other = changed(own, {f"method.{key}": value})
    with pytest.raises(InputError, match=f"method.{key} is {value!r} but .* in training.*leave it"):
        at_test_time(other, own)
    assert at_test_time(own, own) is own


def test_a_reconstruction_that_is_not_finite_is_named(shared, tmp_path):
    asked = override(load_config(shared), ["--config.method.solver=adaptive",
                                               "--config.method.tolerance=1e-12"])
    with pytest.raises(InputError, match="of a, b is not finite .* a larger method.tolerance"):
        evaluate(asked, shared, tmp_path)
    assert (tmp_path / "reconstructions" / "a.h5").exists()
    assert not (tmp_path / "metrics.json").exists()


def test_evaluation_may_change_the_acquisition(run, tmp_path):
    workdir, results = run
    changed = load_config(workdir)
    changed.acquisition.acceleration = 2.0
    easier = evaluate(changed, workdir, tmp_path / "R2")
    assert (easier["main"]["zero_filled"]["psnr"]["mean"]
            > results["main"]["zero_filled"]["psnr"]["mean"])
    assert (tmp_path / "R2" / "metrics.json").is_file()


def test_only_the_runs_own_config_is_evaluated_into_its_folder(run):
    workdir, _ = run
    before = (workdir / "eval" / "metrics.json").read_bytes()
    for key, value in (("acquisition.acceleration", 2.0), ("method.loss.ssim", 0.5), ("seed", 3),
                       ("evaluation.checkpoint", "latest")):
        asked = changed(load_config(workdir), {key: value})
        with pytest.raises(InputError, match=f"{key} is {value!r} but .* in training, whose "
                           "results belong in .*eval; name another folder, as --output=.*eval_2"):
            evaluate(asked, workdir)
    assert (workdir / "eval" / "metrics.json").read_bytes() == before
    evaluate(changed(load_config(workdir), {"evaluation.figures": 0}), workdir)


def test_the_vanilla_network_is_not_called_flat(tmp_path, monkeypatch, capsys):
    """Whose code computes it."""
    titles = []
    save = figures.save
    monkeypatch.setattr(figures, "save", lambda figure, path: (titles.extend(
        text.get_text() for text in figure.findobj(plt.Text)), save(figure, path)))
    workdir = untrained(tmp_path / "run", config.method("vanilla", steps=2,
                                                        network=toy.TINY["network"]))
    evaluate(load_config(workdir), workdir)
    texts = [capsys.readouterr().out, *titles, *(
        path.read_text() for path in workdir.rglob("*") if path.suffix in (".json", ".csv"))]
    assert any("vanilla" in one for one in titles)
    assert not [one for one in texts if re.search(r"\bflat\b", one, re.IGNORECASE)]


def test_a_users_volume_is_evaluated_as_the_readme_says(run, tmp_path):
    workdir, _ = run
    blobs = np.stack([s.target for s in toy.make(size=24).test["main"][0].load()] * 4, axis=-1)
    nibabel.save(nibabel.Nifti1Image(blobs.astype(np.float32), np.eye(4)), tmp_path / "T1.nii.gz")
    cli.main([
        "evaluate", f"--workdir={workdir}", f"--output={tmp_path / 'own'}",
        "--config.data.name=volume", f"--config.data.path={tmp_path / 'T1.nii.gz'}",
        "--config.data.split=False"])
    saved = json.loads((tmp_path / "own" / "metrics.json").read_text())
    assert saved["test_set"] == "all" and saved["num_slices"] == 12
    assert (tmp_path / "own" / "reconstructions" / "T1.h5").is_file()


def test_another_name_brings_its_options_and_keeps_shared_ones():
    small = config.experiment(data=config.data("icbm", matrix=96, coils=3))
    other = override(small, ["--config.data.name=volume", "--config.data.path=x.nii",
                                 "--config.method.name=unet", "--config.method.network.channels=5"])
    assert (other.data.name, other.data.path, other.data.matrix, other.data.coils) == (
        "volume", "x.nii", 96, 3)
    assert "contrasts" not in other.data and "schedule" not in other.method
    assert (other.method.name, other.method.network.channels) == ("unet", 5)


def test_the_table_compares_with_zero_filling(run):
    text = tables.of_run(run[1])
    gain = (run[1]["main"]["method"]["psnr"]["mean"]
            - run[1]["main"]["zero_filled"]["psnr"]["mean"])
    assert f"| main | gain | {gain:+.2f} |" in text and "| other | zero-filled |" in text
    for name, volumes in (("main", 2), ("other", 1)):
        scores = [line for line in text.splitlines() if line.startswith(f"| {name} | flat |")]
        assert len(scores) == 1 and scores[0].count("±") == (5 if volumes > 1 else 0)


def test_an_acceleration_drawn_from_a_range_is_reported_as_one(tmp_path):
    drawn = toy.experiment(acquisition={"acceleration": (2.0, 4.0)})
    train(drawn, tmp_path)
    metrics = evaluate(load_config(tmp_path), tmp_path)
    found = metrics["main"]["acceleration"]
    assert found["range"] == [2, 4]
    text = f"R = 2 to 4 (achieved {found['achieved']:.2f})"
    assert text in tables.of_run(metrics)
    assert text in (tmp_path / "eval" / "report.html").read_text()


def test_a_config_survives_json():
    original = toy.experiment(method={"likelihood.sigma": 0.6}, seed=7)
    again = config.from_json(config.to_json(original))
    assert config.to_json(again) == config.to_json(original)
    assert config.config_hash(again) == config.config_hash(original)
    config.make_method(again)
    again.method.schedule.alpha = 0.25
    assert config.config_hash(again) != config.config_hash(original)


def test_options_that_do_not_exist_are_refused():
    with pytest.raises(InputError, match="schedule is 'stps', .*did you mean 'steps'"):
        config.method("flat", schedule={"stps": 3})
    with pytest.raises(InputError, match="'netwrk', .*did you mean 'network'"):
        config.method("flat", netwrk={})
    with pytest.raises(InputError, match="method.network is 8, expected a dict"):
        config.method("flat", network=8)
    with pytest.raises(InputError, match="a part of a config is 'optimizer'"):
        config.experiment(optimizer=1)


def test_states_are_let_go_when_their_volume_is_measured(run, tmp_path, monkeypatch):
    """Fifty-one images of every slice of a test set fit in no memory."""
    workdir, _ = run
    states = []

    def spy(volume, **options):
        gc.collect()
        assert not any(one() is not None for one in states)
        states.append(weakref.ref(volume.states))
        return measures_of(volume, **options)

    monkeypatch.setattr(scoring, "measures_of", spy)
    asked = load_config(workdir)
    asked.evaluation.figures = 0
    evaluate(asked, workdir, tmp_path)
    assert len(states) == 3


def test_zero_filling_combines_coils_in_a_way_that_there_is():
    with pytest.raises(InputError, match="combine is 'sum', expected one of"):
        zero_filled(combine="sum")
