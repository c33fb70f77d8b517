"""Evaluation: from a trained run to scores, reconstructions and figures."""

import csv
import io
import os
from contextlib import closing
from pathlib import Path
from typing import Any

import h5py
import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from flatjax import config as configuration, report
from flatjax.checkpoint import Checkpoints
from flatjax.data.batches import measure_volume, padded_batches
from flatjax.errors import InputError
from flatjax.files import make_folder, write_atomically, write_json, write_text
from flatjax.scoring import (
    QUALITY,
    Scored,
    quality,
    score_volume,
    scorer,
    seconds_per_slice,
    summary as summarise,
)


def load_config(workdir: str | Path) -> ConfigDict:
    """The config that a run was trained with.

    Raises:
        InputError: if the workdir holds none.
    """
    path = Path(workdir) / "config.json"
    try:
        text = path.read_text()
    except OSError as error:
        raise InputError(f"no config in {workdir}: cannot read {path} ({error.strerror}); name the "
                         "workdir of a run made by train.py") from error
    try:
        return configuration.from_json(text)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def load_params(workdir: str | Path, config: ConfigDict) -> tuple[Any, int]:
    """The weights to evaluate, and the step they come from.

    Args:
        workdir: of a trained run.
        config: whose `evaluation.checkpoint` names the checkpoint.

    Raises:
        InputError: if there is no such checkpoint.
    """
    with closing(Checkpoints(Path(workdir), config.train.best_metric)) as checkpoints:
        step = checkpoints.find(str(config.evaluation.checkpoint))
        saved = checkpoints.restore(step)
    return saved["ema"] or saved["params"], step


def evaluate(config: ConfigDict, workdir: str | Path,
             output: str | Path | None = None) -> dict[str, dict[str, Any]]:
    """Score a trained run on every test set of its data.

    Writes, for the main set into `output` and for others into a folder below it of their name:
    `metrics.json`, `metrics.csv` (a row per volume), `reconstructions/<volume>.h5` and figures.
    Volumes whose target is NaN, as test files without a reference, are reconstructed only.

    Args:
        config: of the run, from `load_config`, perhaps with other data or acquisition.
        workdir: of the run.
        output: folder for the results, by default `workdir/eval`.

    Returns:
        the contents of each set's `metrics.json` by its name, the main set first.

    Raises:
        InputError: for a run without that checkpoint, or an output that cannot be written.
    """
    options = configuration.make_evaluation(config)
    method = configuration.make_method(config)
    acquisition = configuration.make_acquisition(config)
    params, step = load_params(workdir, config)
    dataset = configuration.make_dataset(config)
    output = make_folder(output or Path(workdir) / "eval")
    rng = jax.random.key(config.seed)
    params = jax.device_put(params)
    score = scorer(method, config.method.combine)
    results = {}
    for index, (name, volumes) in enumerate(dataset.test.items()):
        folder = output if index == 0 else make_folder(output / name)
        scored = [score_volume(score, params, rng, volume, acquisition, options.batch_size)
                  for volume in tqdm(volumes, desc=f"evaluate {name}", unit="volume")]
        _save(folder, scored)
        scored = [volume for volume in scored if np.isfinite(volume.target).all()]
        if not scored:
            print(f"{name}: no volume has a reference; reconstructions are in {folder}")
            continue
        batch, _ = next(padded_batches(measure_volume(volumes[0], acquisition),
                                       options.batch_size))
        metrics = {
            "test_set": name,
            "checkpoint_step": step,
            "seconds_per_slice": seconds_per_slice(method, params, rng, batch),
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
            "config_hash": configuration.config_hash(config),
            "device": _device(),
        } | _named_summary(scored, config)
        _write(folder, metrics, scored)
        report.draw(folder, scored, metrics, options.figures)
        results[name] = metrics
    if results:
        print(report.table(results))
    print(f"metrics, reconstructions and figures are in {output}")
    return results


def _device() -> str:
    device = jax.devices()[0]
    return f"CPU, {os.cpu_count()} cores" if device.platform == "cpu" else device.device_kind


def _named_summary(scored: list[Scored], config: ConfigDict) -> dict[str, Any]:
    out = summarise(scored)
    out["method"] = {"name": config.method.name} | out["method"]
    out["acceleration"] = {"nominal": config.acquisition.acceleration,
                           "achieved": out.pop("achieved_acceleration")}
    return out


def _save(folder: Path, scored: list[Scored]) -> None:
    for volume in scored:
        def save(path: Path, images: Any = volume.reconstruction) -> None:
            with h5py.File(path, "w") as file:
                file.create_dataset("reconstruction", data=images)

        write_atomically(folder / "reconstructions" / f"{volume.stem}.h5", save)


def _write(folder: Path, metrics: dict[str, Any], scored: list[Scored]) -> None:
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["volume", "slices", *QUALITY, *(f"zero_filled_{key}" for key in QUALITY),
                     "straightness", "measurement_residual", "acceleration"])
    for v in scored:
        writer.writerow([v.name, len(v.target), *quality(v.target, v.reconstruction).values(),
                         *quality(v.target, v.zero_filled).values(),
                         v.straightness.mean(), v.residual.mean(), v.acceleration])
    write_text(folder / "metrics.csv", table.getvalue())
    write_json(folder / "metrics.json", metrics)
