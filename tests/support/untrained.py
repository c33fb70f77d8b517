"""Runs that were never trained."""

from contextlib import closing

import jax
import numpy as np

from flatjax import config
from flatjax.data import Acquisition
from flatjax.data.batches import measure_volume, padded_batches
from flatjax.runs.checkpoint import Checkpoints
from flatjax.training.parallel import TrainState
from tests.support import toy
from tests.support.arrays import noisy


def workdir(folder, method, **parts):
    """A run with random weights that was never trained."""
    folder.mkdir(parents=True)
    experiment = config.experiment(method=method, data=config.data("toy"),
                                   evaluation=config.evaluation(figures=1, batch_size=3), **parts)
    (folder / "config.json").write_text(config.to_json(experiment))
    batch, _ = next(padded_batches(measure_volume(toy.make().test["other"][0], Acquisition()), 1))
    params = noisy(jax.jit(config.make_method(experiment).init)(jax.random.key(0), batch), 0.1)
    with closing(Checkpoints(folder, "psnr", create=True)) as checkpoints:
        checkpoints.save(1, TrainState(np.int32(1), params, {}, {}), {"psnr": 0.0})
    return folder
