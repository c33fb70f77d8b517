"""Self-supervised training: without a reference, to the same bits, chosen by held-out samples."""

import json

import jax
import numpy as np
import pytest

from flatjax import config
from flatjax.data import DATASETS, DataSet, Volume
from flatjax.errors import InputError
from flatjax.evaluation import heldout
from flatjax.runs.checkpoint import Checkpoints
from flatjax.training import train as training
from flatjax.training.train import train
from tests.support import toy

SHAPE = 16


def unseen(*, size: int = SHAPE, change: float = 0.0) -> DataSet:
    """The toy set as undersampled scans: targets are NaN, as is, or changed, all unmeasured."""
    whole = toy.make(size=size)
    mask = (np.arange(size) % 2 == 0)[None].astype(np.float32)

    def hide(samples):
        return [one._replace(kspace=one.kspace * mask + change * (1 - mask), mask=mask,
                             target=np.full_like(one.target, np.nan)) for one in samples]

    def hidden(volumes):
        return [Volume(one.name, lambda one=one: hide(one.load())) for one in volumes]

    return DataSet(lambda rng, n: hide(whole.draw(rng, n)), hidden(whole.validation),
                   {name: hidden(volumes) for name, volumes in whole.test.items()})


@pytest.fixture(autouse=True)
def toy_data(monkeypatch):
    monkeypatch.setitem(DATASETS, "toy", unseen)


def settings(**more):
    return toy.experiment(train={"supervision": "self", "splits": 2, **more})


def weights(workdir):
    checkpoints = Checkpoints(workdir, "heldout_error")
    return checkpoints.restore(checkpoints.find("latest")[0])


def same_bits(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_a_run_on_all_devices_sees_nothing_unmeasured_and_resumes_to_the_same_bits(
        tmp_path, monkeypatch, capsys):
    assert jax.local_device_count() == 4
    scores = train(settings(), tmp_path / "whole")
    assert [*scores] == ["heldout_error"] and 0 < scores["heldout_error"] < 2
    assert f"validation held-out error {scores['heldout_error']:.4f}" in capsys.readouterr().out
    log = [json.loads(line) for line in
           (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert {"heldout", "gradient_norm"} <= {*log[0]} and log[0]["gradient_norm"] > 0

    other = settings()
    other.data.change = 7.0
    steps = training.run_steps

    def stopped(state, update, validate, make_batch, explain, options, *rest):
        return steps(state, update, validate, make_batch, explain,
                     options._replace(steps=2), *rest)

    monkeypatch.setattr(training, "run_steps", stopped)
    train(other, tmp_path / "other")
    monkeypatch.setattr(training, "run_steps", steps)
    train(other, tmp_path / "other")
    assert "at step 2" in capsys.readouterr().out
    same_bits(weights(tmp_path / "whole"), weights(tmp_path / "other"))


def test_the_best_checkpoint_has_the_smallest_error(tmp_path):
    assert config.best_metric(settings().train) == "heldout_error"
    assert config.best_metric(toy.experiment().train) == "psnr"
    checkpoints = Checkpoints(tmp_path, "heldout_error", create=True)
    for step, error in ((1, 0.5), (2, 0.2), (3, 0.4), (4, float("nan"))):
        checkpoints.save(step, {"w": np.ones(1)}, {"heldout_error": error})
    checkpoints.close()
    assert checkpoints.find("best")[0] == 2


@pytest.mark.parametrize(("train_options", "acquisition", "message"), [
    ({"supervision": "full"}, {}, "no slice of the first batch has a reference.*supervision=self"),
    ({"supervision": "none"}, {}, "train.supervision is 'none', expected one of full, self"),
    ({"split_share": 1.5}, {}, "split_share is 1.5"),
    ({"split_share": 1e-4}, {}, "samples lie outside of the fully sampled center")])
def test_what_cannot_be_learned_from_is_one_line(tmp_path, train_options, acquisition, message):
    with pytest.raises(InputError, match=message) as caught:
        train(settings(**train_options), tmp_path)
    assert "\n" not in str(caught.value)


def test_full_k_space_without_a_mask_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(DATASETS, "toy", toy.make)
    whole = toy.experiment(train={"supervision": "self"},
                           acquisition=config.acquisition(acceleration=1.0))
    with pytest.raises(InputError, match="fully sampled, or without gaps, expected undersampled"):
        train(whole, tmp_path)


def test_validation_is_that_of_the_held_out_samples(tmp_path):
    experiment = settings()
    dataset, acquisition = unseen(), config.make_acquisition(experiment)
    method = config.make_method(experiment)
    scores = train(experiment, tmp_path)
    params = weights(tmp_path)["params"]
    volume = dataset.validation[0]
    slices = heldout.measure_volume(volume, acquisition)
    key = jax.random.split(jax.random.key(0), 3)[2]
    found = heldout.scorer(method)(params, key, volume.name, slices, 2)
    assert found == pytest.approx(scores["heldout_error"], rel=1e-4)
