"""Packed models: what goes in comes out, damaged ones get one line, shipped ones reconstruct."""

import json
import shutil
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest

import flatjax
from flatjax import cli, config
from flatjax.data import DATASETS
from flatjax.data.batches import measure_volume, stack
from flatjax.errors import InputError
from flatjax.evaluation import metrics, tables
from flatjax.inference import pretrained
from flatjax.runs import weights
from flatjax.runs.weights import expected_params
from flatjax.runs.workdir import load_config, load_params
from tests.support import toy
from tests.support.untrained import workdir

LARGEST = 5e6
UNSEEN = {"multicoil": "patient"}  # people not trained on
COMPARED = sorted((Path(__file__).parents[2] / "docs" / "comparison" / "models").glob("*"))


@pytest.fixture(autouse=True)
def toy_data(monkeypatch):
    monkeypatch.setitem(DATASETS, "toy", toy.make)


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A run, and the folder that it was packed into."""
    folder = tmp_path_factory.mktemp("packed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(DATASETS, "toy", toy.make)
        run = workdir(folder / "run", config.method("flat", **toy.TINY))
        cli.main(["pack", f"--workdir={run}", f"--to={folder / 'tiny'}"])
    return run, folder / "tiny"


def test_weights_are_the_runs_in_half_precision(packed):
    run, folder = packed
    model = flatjax.load(str(folder))
    params, step = load_params(run, load_config(run), model.method)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(
        a, np.asarray(b).astype(np.float16).astype(np.float32)), model.params, params)
    assert load_params(folder, model.config, model.method)[1] == step == 1
    assert jax.tree.structure(model.params) == jax.tree.structure(params)


def test_weights_are_not_packed_as_what_they_were_not_trained_for(packed, tmp_path, capsys):
    run, _ = packed
    for change, words in (("parameterization=endpoint", "method.parameterization is 'endpoint'"),
                          ("schedule.steps=3", "weights per cascade belong")):
        with pytest.raises(SystemExit) as stop:
            cli.main(["pack", f"--workdir={run}", f"--to={tmp_path / 'to'}",
                      f"--config.method.{change}"])
        error = capsys.readouterr().err
        assert stop.value.code == 2 and error.count("\n") == 1 and words in error
        assert not (tmp_path / "to").exists()


def test_packing_says_where_it_wrote_and_leaves_the_runs_own_scores_alone(packed, tmp_path,
                                                                         capsys):
    run, to = shutil.copytree(packed[0], tmp_path / "run"), tmp_path / "small"
    (run / "eval").mkdir()
    (run / "eval" / "metrics.json").write_text("its own")
    cli.main(["pack", f"--workdir={run}", f"--to={to}"])
    assert f"the packed model is in {to}" in capsys.readouterr().out.splitlines()
    assert [one.name for one in (run / "eval").iterdir()] == ["metrics.json"]
    assert (run / "eval" / "metrics.json").read_text() == "its own"
    assert json.loads((run / "eval_small" / "metrics.json").read_text())["method"]["psnr"]


def test_a_run_is_no_place_for_packed_weights(packed):
    run, _ = packed
    with pytest.raises(InputError, match="cannot pack into .*, which holds a run"):
        pretrained.pack(load_config(run), run, run)
    assert not (run / weights.FILE).exists()


def test_nothing_to_score_is_one_line(packed, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pretrained, "evaluate", lambda *args: {})
    with pytest.raises(SystemExit) as stop:
        cli.main(["pack", f"--workdir={packed[0]}", f"--to={tmp_path / 'to'}"])
    assert stop.value.code == 2 and "no test volume of data set toy" in capsys.readouterr().err


def test_the_scores_are_those_of_the_packed_weights(packed, tmp_path):
    _, folder = packed
    cli.main(["evaluate", f"--pretrained={folder}", f"--output={tmp_path}"])
    now = json.loads((tmp_path / "metrics.json").read_text())
    saved = json.loads((folder / "scores.json").read_text())["main"]
    assert now["method"] == saved["method"] and now["checkpoint_step"] == saved["checkpoint_step"]
    card = (folder / "MODEL_CARD.md").read_text()
    assert f"{saved['method']['psnr']['mean']:.2f}" in card and "any other clinical" in card
    assert f"{saved['parameters']:,} parameters" in card and card.startswith("# tiny")


def rewritten(path, to, change):
    """A copy of a zip of arrays with `change(name, bytes) -> bytes or None` applied."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(to, "w") as new:
        for name in old.namelist():
            data = change(name, old.read(name))
            if data is not None:
                new.writestr(name, data)
    return to


def header(array, shape):
    """The bytes of an array in the `.npy` format, with a header that says another shape."""
    text = str({"descr": array.dtype.str, "fortran_order": False, "shape": shape}).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + array.tobytes()


@pytest.mark.parametrize("change, words", [
    (lambda name, data: None if name.endswith("bias.npy") else data, "bias is absent"),
    (lambda name, data: data[:-1], "cannot be read as weights"),
    (lambda name, data: data + bytes(10**6), "more than the weights"),
    (lambda name, data: data[:20], "cannot be read as weights"),
    (lambda name, data: b"\x80\x04K\x01.", "another model"),  # a pickle
    (lambda name, data: header(np.zeros(1, np.float16), (10**15,)), "cannot be read as weights"),
    (lambda name, data: header(np.zeros(1, object), ()), "cannot be read as weights"),
    (lambda name, data: data[:128] + b"\xff" * (len(data) - 128), "is not of finite real numbers"),
])
def test_damaged_weights_get_one_line(packed, tmp_path, change, words):
    model = flatjax.load(str(packed[1]))
    path = rewritten(packed[1] / weights.FILE, tmp_path / weights.FILE, change)
    with pytest.raises(InputError) as caught:
        weights.load(path, expected_params(model.method))
    assert words in str(caught.value) and str(path) in str(caught.value)


def test_flipped_bytes_get_one_line(packed, tmp_path):
    expected = expected_params(flatjax.load(str(packed[1])).method)
    path = tmp_path / weights.FILE
    with (zipfile.ZipFile(packed[1] / weights.FILE) as old,
          zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    whole, refused = path.read_bytes(), 0
    for at in range(0, len(whole), len(whole) // 150):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1:])
        try:
            weights.load(path, expected)
        except InputError:
            refused += 1
    assert refused > 100


def test_files_that_are_no_weights_get_one_line(packed, tmp_path):
    expected = expected_params(flatjax.load(str(packed[1])).method)
    whole = (packed[1] / weights.FILE).read_bytes()
    for content in (b"", b"PK", whole[:len(whole) // 2], whole[100:]):
        (tmp_path / "w.npz").write_bytes(content)
        with pytest.raises(InputError, match="expected a file that flatjax packed"):
            weights.load(tmp_path / "w.npz", expected)
    for value in (np.nan, 1e6):
        with pytest.raises(InputError, match="the weight a is not finite as float16"):
            weights.save(tmp_path / "w.npz", {"a": np.float32([value])})


def test_an_unknown_model_is_named(monkeypatch, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["evaluate", "--pretrained=brian", "--output=x"])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.count("\n") == 1
    assert "no pretrained model 'brian', expected" in error
    for arguments, words in ((["evaluate", "--output=x"], "--workdir is missing"),
                             (["evaluate", "--pretrained=multicoil"], "--output is missing"),
                             (["reconstruct", "absent.npy"], "absent.npy")):
        with pytest.raises(SystemExit):
            cli.main(arguments)
        assert words in capsys.readouterr().err


@pytest.mark.parametrize("name", pretrained.names())
def test_a_shipped_model_reconstructs_another_head(name):
    folder = pretrained.folder(name)
    assert {path.name for path in folder.iterdir()} == {
        "config.json", "weights.npz", "scores.json", "MODEL_CARD.md"}
    assert sum(path.stat().st_size for path in folder.iterdir()) < LARGEST
    model = flatjax.load(name)
    dataset = config.make_dataset(model.config)
    slices = measure_volume(dataset.test[UNSEEN[name]][0], config.make_acquisition(model.config))
    batch = stack(slices[len(slices) // 2:][:1])
    image = jax.jit(model.method.reconstruct)(model.params, jax.random.key(0),
                                              batch.measurement).image
    zero = flatjax.mri.combine(batch.measurement.kspace, batch.measurement.maps)
    assert metrics.psnr(prediction=image, target=batch.target) > 3 + metrics.psnr(
        prediction=zero, target=batch.target)
    scores = json.loads((folder / "scores.json").read_text())
    assert f"{scores[UNSEEN[name]]['method']['psnr']['mean']:.2f}" in (
        folder / "MODEL_CARD.md").read_text()
    assert str(model.config.init_from) == "" or not model.config.init_from.startswith("/")


@pytest.mark.parametrize("folder", COMPARED, ids=lambda folder: folder.name)
def test_models_of_the_comparison_are_what_their_scores_are_of(folder):
    model = flatjax.load(str(folder))
    scores = json.loads((folder / "scores.json").read_text())
    for one in scores.values():
        assert one["parameters"] == sum(leaf.size for leaf in jax.tree.leaves(model.params))
        assert one["config_hash"] == config.config_hash(model.config)
        assert one["method"]["name"] == model.config.method.name
        shown = tables.over_volumes(one, "method", "psnr")
        assert f"| {shown} |" in (folder / "MODEL_CARD.md").read_text()
