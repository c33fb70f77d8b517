"""The rows, the table and the figure of a comparison of several runs."""

from pathlib import Path
from typing import Any

import h5py
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from flatjax import config as configuration
from flatjax.data.base import Volume
from flatjax.data.batches import measure_volume, stack
from flatjax.evaluation import figures, tables
from flatjax.evaluation.scoring import OBJECT, QUALITY
from flatjax.evaluation.statistics import seed_differences
from flatjax.evaluation.tables import COLUMNS, Row
from flatjax.mri import center_crop, combine


def tabulate(results: dict[str, dict[str, dict[str, Any]]], folders: dict[str, Path]) -> list[Row]:
    """Rows of runs that were evaluated at one acceleration, test set by test set.

    Args:
        results: by run, what `evaluate` returned; the first run is what the others are compared
            with.
        folders: by run, where it wrote.
    """
    first = next(iter(results))
    rows = []
    for index, test_set in enumerate(results[first]):
        base: list[dict[str, list[float]]] = []
        for run, sets in results.items():
            slices = tables.read_slices(folders[run] / ("" if index == 0 else test_set))
            against = seed_differences([slices], base, tables.PAIRED)
            base = base or [slices]
            rows.append(Row(run, test_set, (sets[test_set] | {"slices": slices},), against))
    return rows


def markdown(rows: list[Row]) -> str:
    """The table, one for each acceleration and test set."""
    first = rows[0].label if rows else ""
    told = ("NFE", "ms per slice", "parameters", "memory (MB)", "drops (dB)", "straightness",
            "data residual")
    head = ["run", "PSNR (dB)", "SSIM", "NMSE", f"PSNR - {first}", f"SSIM - {first}", *told]
    out = []
    for acceleration, test_set in dict.fromkeys((nominal(row), row.test_set) for row in rows):
        own = [row for row in rows if (nominal(row), row.test_set) == (acceleration, test_set)]
        out += [f"**{test_set}**, R = {acceleration:g} (achieved "
                f"{own[0].mean('acceleration', 'achieved'):.2f}), {tables.size(own[0])}; "
                f"{tables.start(own[0])}", "",
                *tables.markdown(head, (
                    [row.label, *(tables.over_volumes(row.metrics[0], "method", key)
                                  for key in QUALITY),
                     *(tables.difference(row, key) for key in tables.PAIRED),
                     *(COLUMNS[name](row) for name in told)] for row in own)), ""]
    out.append("Mean ± std over volumes, if several. Differences are paired by slice, with 95 % "
               "bootstrap intervals over slices. NFE counts network evaluations per slice, of all "
               "samples; memory is that of the compiled reconstruction of one batch; drops are how "
               "often, and by how much in all, PSNR falls from one state to the next. Evaluated on "
               f"{tables.devices(rows)}.")
    return "\n".join(out)


def nominal(row: Row) -> float:
    """The nominal R that a row was evaluated at."""
    return row.metrics[0]["acceleration"]["nominal"]


def plain(row: Row) -> dict[str, Any]:
    """A row as `comparison.csv` and `comparison.json` hold it."""
    metrics = row.metrics[0]

    def scores(keys: tuple[str, ...]) -> dict[str, float]:
        return {f"{key}{suffix}": metrics["method"][key][part] for key in keys
                for suffix, part in (("", "mean"), ("_std", "std"))}

    return {"run": row.label, "method": metrics["method"]["name"], "test_set": row.test_set,
            "acceleration": nominal(row),
            "achieved_acceleration": metrics["acceleration"]["achieved"],
            **scores(QUALITY), **tables.plain_differences(row),
            **{key: metrics[key] for key in (
                "nfe", "seconds_per_slice", "parameters", "peak_memory_bytes", "psnr_drops",
                "psnr_drop_db", "straightness", "measurement_residual", "num_slices",
                "num_volumes", "checkpoint_step", "config_hash", "device")}, **scores(OBJECT)}


def middle_slice(volume: Volume, config: ConfigDict, folders: dict[str, Path]
                 ) -> tuple[str, np.ndarray, dict[str, np.ndarray]]:
    """The middle slice of a test volume as every run reconstructs it.

    Args:
        volume: that the runs were tested on.
        config: of any of the runs.
        folders: by run, where `evaluate` wrote.

    Returns:
        `(title, target, images)`: `[h, w]` float32, images by label, zero filling first.
    """
    slices = measure_volume(volume, configuration.make_acquisition(config))
    index = len(slices) // 2
    batch = stack(slices[index:index + 1])
    target = np.asarray(batch.target[0])
    measured = batch.measurement
    zero_filled = center_crop(combine(measured.kspace, measured.maps, config.combine),
                              target.shape)
    images = {"zero-filled": np.asarray(zero_filled[0])}
    for label, folder in folders.items():
        path = folder / "reconstructions" / f"{volume.name.removesuffix('.h5')}.h5"
        with h5py.File(path) as file:
            images[label] = file["reconstruction"][index]
    return f"{volume.name}, slice {index + 1} of {len(slices)}", target, images


def draw(rows: list[Row], title: str, target: np.ndarray, shown: dict[str, np.ndarray]) -> Figure:
    """All runs side by side above their errors in one window; below, PSNR against the cost.

    Args:
        rows: of one acceleration and test set.
        title, target, shown: see `middle_slice`.
    """
    images = {"target\n": target} | {
        figures.scored_title(label, image, target): image for label, image in shown.items()}
    width, height = figures.size_of(images)
    figure = plt.figure(figsize=(max(9, width), height + 4.2), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=(height, 4.2))
    upper, lower = parts
    # One wild image should not hide the errors of the others: colors end at the start's largest.
    figures.panels(upper, images, target,
                   float(np.abs(shown["zero-filled"] - target).max()))
    upper.suptitle(f"{title}, R = {nominal(rows[0]):g}", fontsize=10)
    axes = lower.subplots(1, 2, sharey=True)
    colors = plt.get_cmap("tab10" if len(rows) <= 10 else "tab20")
    for one, key, unit, label in zip(axes, ("nfe", "seconds_per_slice"), (1.0, 1000.0), (
            "network evaluations per slice",
            f"milliseconds per slice on {rows[0].metrics[0]['device']}"), strict=True):
        figures.costs(one, [
            figures.Series(row.label, [(unit * row.mean(key), row.mean("method", "psnr", "mean"))],
                           colors(index % colors.N)) for index, row in enumerate(rows)], label)
        one.axhline(rows[0].zero_filled()[0], color="gray", linestyle=":", label="zero-filled")
    axes[0].legend(fontsize=7)
    axes[1].set_ylabel("")
    lower.suptitle(f"mean over {rows[0].test_set}", fontsize=10)
    return figure
