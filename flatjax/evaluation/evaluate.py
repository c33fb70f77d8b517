"""Evaluation: from a trained run to scores, reconstructions and figures."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from flatjax import config as configuration
from flatjax.data.acquisition import ends
from flatjax.data.batches import measure_volume, padded_batches
from flatjax.data.splits import restore_split
from flatjax.errors import InputError, NonFiniteError
from flatjax.evaluation import figures, heldout, scoring, tables, viewer
from flatjax.evaluation.scoring import ALONG, OBJECT, QUALITY, Measures, Scored
from flatjax.files import make_folder, write_atomically, write_json
from flatjax.options import flattened
from flatjax.runs.workdir import at_test_time, load_config, load_params


def evaluate(config: ConfigDict, workdir: str | Path,
             output: str | Path | None = None) -> dict[str, dict[str, Any]]:
    """Score a trained run on every test set of its data.

    Writes, for the main set into `output` and for others into a folder below it of their name:
    `metrics.json`, `metrics.csv` (a row per volume), `slices.csv` (a row per slice),
    `reconstructions/<volume>.h5` (with the standard deviation `std` of a method that draws several
    posterior samples), figures and `report.html`, which shows slices of the volumes that are drawn
    interactively. Volumes without a reference, whose target is NaN, are reconstructed only. With
    `config.evaluation.heldout` also `heldout.csv`, which needs none.

    Args:
        config: of the run, from `load_config`, perhaps with other data or acquisition.
        workdir: of the run.
        output: folder for the results; by default `workdir/eval`, for the run's own config alone.

    Returns:
        the contents of each set's `metrics.json` by its name, the main set first.

    Raises:
        InputError: for a run without that checkpoint, steps that its weights cannot take or an
            output that cannot be written.
        NonFiniteError: if a reconstruction is not finite; it is saved.
    """
    found = {name: one.metrics for name, one in evaluate_sets(config, workdir, output).items()}
    if config.evaluation.heldout:
        errors = heldout.evaluate(config, workdir, output or Path(workdir) / "eval")
        print(heldout.markdown({config.method.name: errors}))
    return found


class Evaluated(NamedTuple):
    """What an evaluation gave of one test set."""

    metrics: dict[str, Any]  # the contents of `metrics.json`
    slices: dict[str, np.ndarray]  # the scores of `QUALITY`, `[slices]` float64
    middle: Scored  # the middle slice of the first volume
    moving: list[Measures]  # of the volumes that are drawn, those whose images move
    views: list[viewer.View]  # of the volumes that are drawn, some slices


def evaluate_sets(config: ConfigDict, workdir: str | Path,
                  output: str | Path | None = None) -> dict[str, Evaluated]:
    """As `evaluate`, with what `metrics.json` does not hold."""
    asked, config = config, at_test_time(config, load_config(workdir))
    options = configuration.make_evaluation(config)
    method = configuration.make_method(config)
    acquisition = configuration.make_acquisition(config)
    params, step = load_params(workdir, config, method)
    dataset = restore_split(configuration.make_dataset(config), config.data, workdir)
    output = make_folder(output or _own_folder(asked, workdir))
    rng = jax.random.key(config.seed)
    params = jax.device_put(params)
    score = scoring.scorer(method, config.combine)
    results: dict[str, Evaluated] = {}
    for index, (name, volumes) in enumerate(dataset.test.items()):
        folder = output if index == 0 else make_folder(output / name)
        measured, middles, views, broken, timed = [], [], [], [], None
        for volume in tqdm(volumes, desc=f"evaluate {name}", unit="volume"):
            slices = measure_volume(volume, acquisition)
            timed = timed or next(padded_batches(slices, options.batch_size))[0]
            scored = scoring.score_volume(score, params, rng, volume.name, slices,
                                          options.batch_size)
            _save(folder, scored)
            if not np.isfinite(scored.reconstruction).all():
                broken.append(volume.name)
            elif np.isfinite(scored.target).all():
                drawn = len(measured) < options.figures
                measured.append(scoring.measures_of(scored, along=drawn))
                if drawn:
                    views += viewer.views(scored, measured[-1], -(
                        -viewer.SLICES // min(options.figures, len(volumes))))
                if drawn or not middles:
                    middles.append(scored.at(len(scored.target) // 2))
        if broken:
            raise NonFiniteError(
                f"the reconstruction of {', '.join(broken)} is not finite (see {folder}), expected "
                "numbers: take the checkpoint of a run that did not diverge, data without NaN, "
                "and with adaptive steps a larger method.tolerance or a fixed method.solver")
        if timed is None or not measured:
            print(f"{name}: no volume has a reference; reconstructions are in {folder}")
            continue
        lowest, highest = ends(config.acquisition.acceleration)
        metrics = {
            "test_set": name,
            "checkpoint_step": step,
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
            "config_hash": configuration.config_hash(config),
            "device": _device(),
            **scoring.cost(method, params, rng, timed),
            **scoring.summary(measured, config.method.name, (lowest + highest) / 2),
        }
        if lowest < highest:
            metrics["acceleration"]["range"] = [lowest, highest]
        _write(folder, metrics, measured)
        kind = config.method.name
        results[name] = Evaluated(
            metrics, {key: np.concatenate([v.slices[key] for v in measured]) for key in QUALITY},
            middles[0], _draw(folder, measured[:options.figures], middles, kind,
                              metrics["num_slices"]), views)
        viewer.write(folder / "report.html", f"{kind} on {name}", viewer.facts(metrics),
                     {kind: views}, {kind: kind},
                     [viewer.Table("Scores over all slices", *tables.beside_zero_filling(metrics))])
    if results:
        print(tables.of_run({name: one.metrics for name, one in results.items()}))
    print(f"metrics, reconstructions and figures are in {output}")
    return results


def _own_folder(config: ConfigDict, workdir: str | Path) -> Path:
    """The folder of results of the run's own config; an `InputError` for another one's."""
    folder = Path(workdir) / "eval"
    asked, own = map(flattened, (config, load_config(workdir)))
    for key in sorted({*asked, *own} - {"evaluation.batch_size", "evaluation.figures",
                                            "evaluation.heldout"}):
        if asked.get(key) != own.get(key):
            raise InputError(f"{key} is {asked.get(key)!r} but {own.get(key)!r} in training, whose "
                             f"results belong in {folder}; name another folder, as "
                             f"--output={folder}_2")
    return folder


def _device() -> str:
    device = jax.devices()[0]
    if device.platform != "cpu":
        return device.device_kind
    allowed = getattr(os, "sched_getaffinity", None)  # not everywhere
    cores = len(allowed(0)) if allowed else os.cpu_count()
    return f"CPU, {cores} core{'s' * (cores != 1)}"


def _save(folder: Path, volume: Scored) -> None:
    def save(path: Path) -> None:
        with h5py.File(path, "w") as file:
            file["reconstruction"] = volume.reconstruction
            if volume.std is not None:
                file["std"] = volume.std

    write_atomically(folder / "reconstructions" / f"{volume.stem}.h5", save)


def _write(folder: Path, metrics: dict[str, Any], measured: list[Measures]) -> None:
    def scores(volume: Measures, keys: tuple[str, ...]) -> dict[str, float]:
        return {f"{prefix}{key}": images[key] for prefix, images in (
            ("", volume.method), ("zero_filled_", volume.zero_filled)) for key in keys}

    tables.write_csv(folder / "metrics.csv", [
        {"volume": v.name, "slices": len(v.slices["psnr"]), **scores(v, QUALITY),
         **{key: v.slices[key].mean() for key in ("straightness", "measurement_residual")},
         "acceleration": v.acceleration, **scores(v, OBJECT)} for v in measured])
    tables.write_csv(folder / "slices.csv", [
        {"volume": v.name, "slice": index, **{key: v.slices[key][index] for key in QUALITY}}
        for v in measured for index in range(len(v.slices["psnr"]))])
    write_json(folder / "metrics.json", metrics)


def _draw(folder: Path, volumes: list[Measures], middles: list[Scored], method: str,
          total: int) -> list[Measures]:
    """Draw volumes of a test set into its folder, replacing what an earlier evaluation drew.

    Of each volume the middle slice with its states and errors; of all slices of those that move,
    which are returned, the measures of all states, as a figure and as `trajectory.csv`, a row per
    image and state.
    """
    for volume, middle in zip(volumes, middles, strict=False):
        figures.save(figures.comparison(middle, method), folder / f"comparison_{volume.stem}.png")
    moving = [volume for volume in volumes if len(volume.steps) > 1]
    if moving:
        tables.write_csv(folder / "trajectory.csv", [
            {"image": f"{volume.stem} {index}", "state": state, "times": f"{time:.6g}"} | {
                key: f"{volume.states[key][state, index]:.6g}" for key in ALONG}
            for volume in moving for index in range(len(volume.slices["psnr"]))
            for state, time in enumerate(moving[0].times)])
        figures.save(figures.trajectories({method: moving}, {method: method}, total),
                     folder / "trajectory.png")
    return moving
