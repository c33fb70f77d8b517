"""Evaluation: scores against the metrics, files, figures, and the way to bad input's one line."""

import json

import h5py
import jax
import matplotlib.pyplot as plt
import nibabel
import numpy as np
import pytest
import toy

from flatjax import cli, config, metrics, report
from flatjax.data import DATASETS, Acquisition
from flatjax.data.batches import measure_volume, padded_batches
from flatjax.errors import InputError
from flatjax.evaluate import evaluate, load_config
from flatjax.methods import zero_filled
from flatjax.scoring import score_volume, scorer, summary
from flatjax.train import train


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
        for key in ("psnr", "ssim", "nmse"):
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
        scores.append(metrics.psnr(target, images))
        assert float(row.split(",")[header.index("psnr")]) == pytest.approx(scores[-1])
    assert np.mean(scores) == pytest.approx(results["main"]["method"]["psnr"]["mean"])


def test_figures_are_drawn_and_not_empty(run):
    workdir, _ = run
    names = {path.name for path in (workdir / "eval").glob("*.png")}
    assert names == {"comparison_a.png", "comparison_b.png", "cascades_a.png", "cascades_b.png",
                     "psnr_per_step.png"}
    for name in names:
        assert plt.imread(workdir / "eval" / name)[..., :3].std() > 0.05


def scored_zero_filling(name="a"):
    method = zero_filled.make()
    volume = next(v for v in toy.make().test["main"] if v.name == name)
    return score_volume(scorer(method, "sense"), {}, jax.random.key(0), volume,
                        Acquisition(), batch_size=2)


def test_windows_are_shared_and_nothing_is_clipped():
    scored = scored_zero_filling()
    figure = report.comparison(scored, 1, "zero_filled")
    images = [one for axes in figure.axes for one in axes.images]
    grey = [one for one in images if one.get_cmap().name == "gray"]
    errors = [one for one in images if one.get_cmap().name != "gray"]
    assert len(grey) == 3 and len(errors) == 4
    assert {one.get_clim() for one in grey} == {(0, float(scored.target[1].max()))}
    np.testing.assert_array_equal(grey[0].get_array(), scored.target[1])
    for pair in (errors[:2], errors[2:]):
        assert len({one.get_clim() for one in pair}) == 1
        assert max(one.get_array().max() for one in pair) == pytest.approx(pair[0].get_clim()[1])
    assert np.std(errors[0].get_array()) > 0
    plt.close(figure)


def test_zero_filling_scores_as_itself_and_without_residual():
    scored = scored_zero_filling()
    np.testing.assert_allclose(scored.reconstruction, scored.zero_filled)
    assert scored.residual.max() == 0 and (scored.straightness == 1).all()
    out = summary([scored])
    assert out["nfe"] == 0 and out["psnr_drops"] == 0 and "path_distance_per_step" not in out


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


def command(monkeypatch, capsys, main, *arguments):
    """Exit status and the one line on stderr of a command line."""
    monkeypatch.setattr("sys.argv", ["program", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        main()
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1 and "Traceback" not in errors[0]
    return left.value.code, errors[0]


@pytest.mark.parametrize("arguments, match", [
    (["--config=demo", "--config.method.stps=3"], 'Did you mean "steps"'),
    (["--config=demo", "--config.method.steps=two"], "invalid literal"),
    (["--config=demo", "--config.method.steps=0"], "steps is 0"),
    (["--config=demo", "--config.method.alpha=-1"], "alpha is -1"),
    (["--config=demo", "--config.method.sigma=0"], "sigma is 0"),
    (["--config=demo", "--config.method.sigma=0.2"], "expected below 2"),
    (["--config=demo", "--config.acquisition.acceleration=0.5"], "acceleration"),
    (["--config=demo", "--config.acquisition.noise=-1"], "noise is -1"),
    (["--config=demo", "--config.acquisition.mask=spiral"], "spiral"),
    (["--config=demo", "--config.acquisition.mask=magic",
      "--config.acquisition.center_fraction=0.25"], "magic"),
    (["--config=demo", "--config.train.batch_size=3"], "not divisible by 4 devices"),
    (["--config=demo", "--config.data.name=knee"], "expected one of .*icbm"),
    (["--config=demo", "--config.method.name=magic"], "expected one of .*flat"),
    (["--config=nothing"], "expected the path of a Python file .* or one of .*demo"),
    (["--config=demo", "surplus"], "unexpected argument 'surplus'"),
    ([], "--config is missing")])
def test_bad_training_input_gets_one_line_and_status_2(monkeypatch, capsys, tmp_path, arguments,
                                                       match):
    code, line = command(monkeypatch, capsys, cli.train_main, f"--workdir={tmp_path / 'run'}",
                         *arguments)
    assert code == 2 and not (tmp_path / "run").exists()
    import re
    assert re.search(match, line), line


def test_bad_config_files_get_one_line(monkeypatch, capsys, tmp_path):
    for text, expected in [("x = 1", "has no attribute 'get_config'"),
                           ("def get_config(): return 3", "returned a int"),
                           ("import nothing_like_it", "No module named"), ("def (", "SyntaxError")]:
        path = tmp_path / "config.py"
        path.write_text(text)
        code, line = command(monkeypatch, capsys, cli.train_main, f"--config={path}",
                             f"--workdir={tmp_path / 'run'}")
        assert code == 2 and expected in line


def test_bad_evaluation_input_gets_one_line_and_status_2(monkeypatch, capsys, tmp_path, run):
    workdir, _ = run

    def fails(*arguments):
        return command(monkeypatch, capsys, cli.evaluate_main, *arguments)

    code, line = fails(f"--workdir={tmp_path / 'none'}")
    assert code == 2 and "no config in" in line
    code, line = fails(f"--workdir={workdir}", "--config.evaluation.checkpoint=77")
    assert code == 2 and "checkpoint is '77'" in line
    (tmp_path / "file").write_text("")
    code, line = fails(f"--workdir={workdir}", f"--output={tmp_path / 'file'}")
    assert code == 2 and "cannot write to the folder" in line
    (tmp_path / "config.json").write_text('{"seed": 3}')
    code, line = fails(f"--workdir={tmp_path}")
    assert code == 2 and "not a config that flatjax wrote" in line
    (tmp_path / "config.json").write_bytes((workdir / "config.json").read_bytes())
    code, line = fails(f"--workdir={tmp_path}")
    assert code == 2 and "no checkpoint in" in line


def test_evaluation_may_change_the_acquisition(run, tmp_path):
    workdir, results = run
    changed = load_config(workdir)
    changed.acquisition.acceleration = 2.0
    easier = evaluate(changed, workdir, tmp_path / "R2")
    assert (easier["main"]["zero_filled"]["psnr"]["mean"]
            > results["main"]["zero_filled"]["psnr"]["mean"])
    assert (tmp_path / "R2" / "metrics.json").is_file()


def test_a_users_volume_is_evaluated_as_the_readme_says(run, tmp_path, monkeypatch):
    workdir, _ = run
    blobs = np.stack([s.target for s in toy.make(size=24).test["main"][0].load()] * 4, axis=-1)
    nibabel.save(nibabel.Nifti1Image(blobs.astype(np.float32), np.eye(4)), tmp_path / "T1.nii.gz")
    monkeypatch.setattr("sys.argv", [
        "evaluate", f"--workdir={workdir}", f"--output={tmp_path / 'own'}",
        "--config.data.name=volume", f"--config.data.path={tmp_path / 'T1.nii.gz'}",
        "--config.data.split=False"])
    cli.evaluate_main()
    saved = json.loads((tmp_path / "own" / "metrics.json").read_text())
    assert saved["test_set"] == "all" and saved["num_slices"] == 12
    assert (tmp_path / "own" / "reconstructions" / "T1.h5").is_file()


def test_another_name_brings_its_options_and_keeps_shared_ones():
    small = config.experiment(data=config.data("icbm", matrix=96, coils=3))
    other = cli.override(small, ["--config.data.name=volume", "--config.data.path=x.nii",
                                 "--config.method.name=unet", "--config.method.channels=5"])
    assert (other.data.name, other.data.path, other.data.matrix, other.data.coils) == (
        "volume", "x.nii", 96, 3)
    assert "contrasts" not in other.data and "steps" not in other.method
    assert (other.method.name, other.method.channels) == ("unet", 5)


def test_the_table_compares_with_zero_filling(run):
    text = report.table(run[1])
    gain = (run[1]["main"]["method"]["psnr"]["mean"]
            - run[1]["main"]["zero_filled"]["psnr"]["mean"])
    assert f"| main | gain | {gain:+.2f} |" in text and "| other | zero-filled |" in text


def test_a_config_survives_json():
    original = toy.experiment(method={"sigma": 0.6}, seed=7)
    again = config.from_json(config.to_json(original))
    assert config.to_json(again) == config.to_json(original)
    assert config.config_hash(again) == config.config_hash(original)
    config.make_method(again)
    again.method.alpha = 0.25
    assert config.config_hash(again) != config.config_hash(original)


def test_options_that_do_not_exist_are_refused():
    with pytest.raises(InputError, match=r"flat.make has no option stps; expected some of steps"):
        config.method("flat", stps=3)
    with pytest.raises(InputError, match="no part optimiser"):
        config.experiment(optimiser=1)
