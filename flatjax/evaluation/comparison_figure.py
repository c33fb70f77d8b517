"""The figure of a comparison of several runs."""

from pathlib import Path
from typing import Any, NamedTuple

import h5py
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter, SymmetricalLogLocator
from ml_collections import ConfigDict

from flatjax import config as configuration
from flatjax.data.base import Volume
from flatjax.data.batches import measure_volume, stack
from flatjax.evaluation import report
from flatjax.evaluation.comparison_table import Row
from flatjax.evaluation.scoring import quality
from flatjax.mri import center_crop, combine


class Panels(NamedTuple):
    """One slice as every run reconstructs it.

    Attributes:
        title: which slice.
        target: `[h, w]` float32.
        images: by label, `[h, w]` float32, zero filling first.
    """

    title: str
    target: np.ndarray
    images: dict[str, np.ndarray]


def panels(volume: Volume, config: ConfigDict, folders: dict[str, Path]) -> Panels:
    """The middle slice of a test volume.

    Args:
        volume: that the runs were tested on.
        config: of any of the runs.
        folders: by run, where `evaluate` wrote.
    """
    slices = measure_volume(volume, configuration.make_acquisition(config))
    index = len(slices) // 2
    batch = stack(slices[index:index + 1])
    target = np.asarray(batch.target[0])
    measured = batch.measurement
    blank = center_crop(combine(measured.kspace, measured.maps, config.combine),
                        target.shape)
    images = {"zero-filled": np.asarray(blank[0])}
    for label, folder in folders.items():
        path = folder / "reconstructions" / f"{volume.name.removesuffix('.h5')}.h5"
        with h5py.File(path) as file:
            images[label] = file["reconstruction"][index]
    return Panels(f"{volume.name}, slice {index + 1} of {len(slices)}", target, images)


def draw(rows: list[Row], shown: Panels) -> Figure:
    """All runs side by side above their errors in one window; below, PSNR against the cost.

    Args:
        rows: of one acceleration and test set.
        shown: images of that set.
    """
    target = shown.target
    images = {"target\n": target}
    for label, image in shown.images.items():
        scores = quality(target[None], image[None])
        images[f"{label}\n{scores['psnr']:.2f} dB, SSIM {scores['ssim']:.3f}"] = image
    width, height = report.size_of(images)
    figure = plt.figure(figsize=(max(9, width), height + 4.2), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=(height, 4.2))
    upper, lower = parts
    # One wild image should not hide the errors of the others: colours end at the start's largest.
    report.panels(upper, images, target,
                  float(np.abs(shown.images["zero-filled"] - target).max()))
    upper.suptitle(f"{shown.title}, R = {rows[0].acceleration:g}", fontsize=10)
    costs, times = lower.subplots(1, 2, sharey=True)
    _scatter(costs, rows, "nfe", 1.0)
    _scatter(times, rows, "seconds_per_slice", 1000.0)
    costs.set(xlabel="network evaluations per slice", ylabel="PSNR (dB)")
    times.set(xlabel=f"milliseconds per slice on {rows[0].metrics['device']}")
    costs.legend(fontsize=7)
    lower.suptitle(f"mean over {rows[0].test_set}", fontsize=10)
    return figure


def _scatter(axes: Axes, rows: list[Row], key: str, unit: float) -> None:
    colours = plt.get_cmap("tab10" if len(rows) <= 10 else "tab20")
    at = [unit * row.metrics[key] for row in rows]
    for index, (x, row) in enumerate(zip(at, rows, strict=True)):
        axes.plot(x, row.metrics["method"]["psnr"]["mean"], "o", label=row.run,
                  color=colours(index % colours.N))
    blank = rows[0].metrics["zero_filled"]["psnr"]["mean"]
    axes.axhline(blank, color="grey", linestyle=":", label="zero-filled")
    # Logarithmic, with a place for methods that never evaluate a network.
    axes.set_xscale("symlog", linthresh=1)
    axes.set_xlim(-0.1 if min(at) < 1 else min(at) / 2, 2 * max(1, *at))
    axes.xaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=1, subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.grid(alpha=0.3)
