"""Held-out k-space: the same samples for every method, kept from it, scored as NumPy does."""

import csv

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flatjax import cli, config
from flatjax.data import DATASETS
from flatjax.data.base import Volume
from flatjax.data.batches import measure_volume, stack
from flatjax.data.sets import scans
from flatjax.errors import InputError
from flatjax.evaluation import animation, heldout
from flatjax.methods import Method, Reconstruction, zero_filled
from tests.support import toy
from tests.support.untrained import workdir

ACQUISITION = config.Acquisition(mask="random", acceleration=2.0)


@pytest.fixture(autouse=True)
def toy_data(monkeypatch):
    monkeypatch.setitem(DATASETS, "toy", toy.make)
    monkeypatch.setattr(animation, "_FRAMES", 3)


def recorded(seen, factor):
    """A method that predicts `factor` times what is measured everywhere, and notes what it gets."""
    full = {}

    def reconstruct(params, rng, measurement, *, trajectory=False):
        jax.debug.callback(lambda *arrays: seen.append(arrays), measurement.kspace,
                           measurement.mask, ordered=True)
        kspace = factor * params[:len(measurement.kspace)]
        return Reconstruction(jnp.abs(kspace[:, 0]), kspace, None, None, 0)

    return Method(lambda *_: full, None, reconstruct)


def test_the_error_is_that_of_numpy_on_samples_that_the_method_does_not_get():
    slices = measure_volume(toy.make().test["main"][0], ACQUISITION)
    full = stack([one.measurement for one in slices])
    seen, noise = [], np.random.default_rng(0).normal(size=full.kspace.shape)
    predicted = (full.kspace + 0.1 * noise).astype(np.complex64)
    found = heldout.scorer(recorded(seen, 1.0))(predicted, jax.random.key(0), "a", slices, 3)
    kspace, mask = (np.asarray(one) for one in seen[0])
    whole = np.broadcast_to(full.mask, mask.shape)
    held = whole - mask
    assert (held >= 0).all() and not np.any(held * kspace)
    share = held.sum() / whole.sum()
    assert 0.05 < share <= heldout.SHARE + 0.01
    expected = np.linalg.norm(held * (predicted - full.kspace)) / np.linalg.norm(
        held * full.kspace)
    assert found == pytest.approx(expected, rel=1e-4)


def test_held_out_samples_belong_to_the_volume_and_not_to_batches_or_keys():
    slices = measure_volume(toy.make().test["main"][0], ACQUISITION)
    masks = {}
    for label, (name, seed, size) in {"one": ("a", 0, 3), "same": ("a", 5, 1),
                                      "other": ("b", 0, 3)}.items():
        seen = []
        params = np.zeros((3, 1, 16, 16), np.complex64)
        error = heldout.scorer(recorded(seen, 0.0))(params, jax.random.key(seed), name, slices,
                                                    size)
        assert error == pytest.approx(1, rel=1e-5)
        masks[label] = np.concatenate([np.asarray(mask) for _, mask in seen])
    np.testing.assert_array_equal(masks["one"], masks["same"])
    assert np.any(masks["one"] != masks["other"])


def test_full_k_space_has_nothing_to_hold_out():
    slices = measure_volume(toy.make().test["main"][0], config.Acquisition(acceleration=1.0))
    with pytest.raises(InputError, match="fully sampled, or without gaps"):
        heldout.scorer(zero_filled())({}, jax.random.key(0), "a", slices, 3)


def test_evaluate_and_compare_score_it_beside_references(tmp_path, capsys):
    runs = [workdir(tmp_path / name, config.method("flat", **toy.TINY)) for name in ("a", "b")]
    cli.main(["compare", *(f"--workdir={run}" for run in runs), f"--output={tmp_path / 'both'}",
              "--config.evaluation.heldout=True"])
    printed = capsys.readouterr().out
    assert "| held-out error | main | other |" in printed
    text = (tmp_path / "both" / "heldout.md").read_text()
    assert "| a | " in text and "| b | " in text
    with (tmp_path / "both" / "a" / "heldout.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["test_set"], row["volume"]) for row in rows] == [
        ("main", "a"), ("main", "b"), ("other", "c")]
    assert f"{float(rows[2]['heldout_error']):.4f} |" in printed


def test_scans_without_references_have_this_score_alone(tmp_path, capsys, monkeypatch):
    folder = tmp_path / "data"
    folder.mkdir()
    for index, volume in enumerate(toy.make().test["main"]):
        kspace = np.stack([np.asarray(one.measurement.kspace)
                           for one in measure_volume(volume, ACQUISITION)])
        np.save(folder / f"scan{index}.npy", kspace)
    run = workdir(tmp_path / "run", config.method("flat", **toy.TINY))
    arguments = [f"--workdir={run}", "--config.data.name=scans", f"--config.data.path={folder}",
                 "--config.data.split=False", "--config.evaluation.heldout=True"]
    cli.main(["evaluate", *arguments, f"--output={tmp_path / 'out'}"])
    printed = capsys.readouterr().out
    assert "no volume has a reference" in printed and "| held-out error | all |" in printed
    with (tmp_path / "out" / "heldout.csv").open() as file:
        errors = [float(row["heldout_error"]) for row in csv.DictReader(file)]
    assert len(errors) == 2 and all(0 < one < 3 for one in errors)
    other = workdir(tmp_path / "other", config.method("flat", **toy.TINY))
    cli.main(["compare", f"--workdir={other}", *arguments, f"--output={tmp_path / 'both'}"])
    assert "| other | " in capsys.readouterr().out
    assert scans.make(path=str(folder), split=False).test["all"][0].__class__ is Volume
