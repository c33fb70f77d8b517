"""Scores without references: measured samples that are kept from a method, and what it predicts.

The samples belong to the name of a volume, so every method is tried on the same ones.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from zlib import crc32

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from ml_collections import ConfigDict

from flatjax import config as configuration
from flatjax.data.batches import measure_volume, padded_batches, stack
from flatjax.data.splits import restore_split
from flatjax.evaluation import tables
from flatjax.methods import Method, Params, check_split
from flatjax.methods.self_supervised import split
from flatjax.mri import Batch, Measurement
from flatjax.runs.workdir import at_test_time, load_config, load_params

SHARE = 0.1  # of the samples outside of the fully sampled center


def scorer(method: Method) -> Callable[[Params, Array, str, list[Batch], int], float]:
    """`(params, rng, name, slices, batch size) -> error` of a volume measured by `measure_volume`.

    The relative l2 error `||Lambda (k - y)|| / ||Lambda y||` over all slices and coils, with k
    reconstructed from the other samples.
    """
    @jax.jit
    def powers(params: Params, rng: Array, theta: Measurement, held: Array,
               kspace: Array) -> tuple[Array, Array]:
        predicted = method.reconstruct(params, rng, theta).kspace
        apart, whole = (jnp.sum(jnp.abs(held * one) ** 2, axis=(1, 2, 3))
                        for one in (predicted - kspace, kspace))
        return apart, whole

    def score(params: Params, rng: Array, name: str, slices: list[Batch], size: int) -> float:
        measured = stack([one.measurement for one in slices])
        check_split(measured, SHARE)
        theta, held = jax.device_get(
            split(jax.random.key(crc32(name.encode())), measured, SHARE, "uniform"))
        triples = [jax.tree.map(lambda x, i=i: x[i], (theta, held, measured.kspace))
                   for i in range(len(slices))]
        total = np.zeros(2)
        for index, (batch, count) in enumerate(padded_batches(triples, size)):
            found = powers(params, jax.random.fold_in(rng, index), *batch)
            total += [float(np.sum(one[:count])) for one in found]
        return float(np.sqrt(total[0] / total[1])) if total[1] else 0.0

    return score


def evaluate(config: ConfigDict, workdir: str | Path, output: str | Path) -> dict[str, float]:
    """The mean error over the volumes of each test set, by its name; writes `heldout.csv`.

    Arguments and errors as of `evaluate.evaluate`.
    """
    config = at_test_time(config, load_config(workdir))
    size = configuration.make_evaluation(config).batch_size
    acquisition = configuration.make_acquisition(config)
    method = configuration.make_method(config)
    params, _ = load_params(workdir, config, method)
    dataset = restore_split(configuration.make_dataset(config), config.data, workdir)
    score, rng = scorer(method), jax.random.key(config.seed)
    rows = [{"test_set": name, "volume": volume.name, "heldout_error": score(
                params, rng, volume.name, measure_volume(volume, acquisition), size)}
            for name, volumes in dataset.test.items() for volume in volumes]
    tables.write_csv(Path(output) / "heldout.csv", rows)
    return {name: float(np.mean([row["heldout_error"] for row in rows if row["test_set"] == name]))
            for name in dataset.test}


def markdown(errors: Mapping[str, Mapping[str, float]]) -> str:
    """A table of errors by run and test set, a row for each run."""
    sets = list(next(iter(errors.values())))
    rows: Any = ([run, *(f"{one[name]:.4f}" for name in sets)] for run, one in errors.items())
    return "\n".join(tables.markdown(["held-out error", *sets], rows))
