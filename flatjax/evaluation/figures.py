"""Figures of images, of scores against their cost, and of one evaluation.

Images of one figure share one gray window, from 0 to the target's maximum, and their error maps
share one color scale: nothing is stretched to look better.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure, FigureBase
from matplotlib.ticker import ScalarFormatter, SymmetricalLogLocator

from flatjax.evaluation import trajectory
from flatjax.evaluation.metrics import psnr
from flatjax.evaluation.scoring import Scored, quality
from flatjax.files import write_atomically

_ERRORS = "magma"
_PANEL = 2.0  # inches
_PER_ROW = 8  # at most


def draw_run(folder: Path, volumes: list[Scored], method: str) -> None:
    """Draw volumes of a test set into its folder, replacing what an earlier evaluation drew.

    Images with their errors, the image at every state, and the measures of all states of all
    slices of the drawn volumes, with a table of them: `trajectory.csv`, a row per image and state.
    The states of the first one's middle slice are kept in `trajectory.h5`.

    Args:
        folder: where to.
        volumes: to draw, each by its middle slice.
        method: its name.
    """
    for volume in volumes:
        index = len(volume.target) // 2
        save(comparison(volume, index, method), folder / f"comparison_{volume.stem}.png")
        if len(volume.states) > 1:
            save(strip(volume, index), folder / f"cascades_{volume.stem}.png")
    drawn = [volume for volume in volumes if len(volume.states) > 1]
    if drawn:
        along = trajectory.analyze(drawn)
        names = [f"{volume.stem} {index}" for volume in drawn
                 for index in range(len(volume.target))]
        trajectory.write_table(folder / "trajectory.csv", names, along)
        save(trajectory.draw({method: along}), folder / "trajectory.png")
        trajectory.write_states(folder / "trajectory.h5", drawn[0], len(drawn[0].target) // 2)


def save(figure: Figure, path: Path) -> None:
    """Write a figure and close it."""
    write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=110))
    plt.close(figure)


def scored_title(name: str, image: np.ndarray, target: np.ndarray) -> str:
    """A title that tells the PSNR and SSIM of one image."""
    scores = quality(image[None], target[None])
    return f"{name}\n{scores['psnr']:.2f} dB, SSIM {scores['ssim']:.3f}"


def _image(axes: Axes, image: np.ndarray, title: str, **window: Any) -> Any:
    axes.set_title(title, fontsize=9)
    axes.set_axis_off()
    return axes.imshow(image, interpolation="nearest", **window)


def comparison(volume: Scored, index: int, method: str) -> Figure:
    """Target, zero filling and reconstruction of one slice, with absolute and squared errors.

    Below the target, in the window of the errors, the standard deviation over posterior samples
    of a method that draws them.
    """
    target = volume.target[index]
    images = {"zero-filled": volume.zero_filled[index], method: volume.reconstruction[index]}
    peak = _peak(target)
    errors = {name: np.abs(image - target) / peak for name, image in images.items()}
    largest = max(float(error.max()) for error in errors.values()) or 1.0
    height = _PANEL * target.shape[0] / target.shape[1]
    figure, axes = plt.subplots(3, 3, figsize=(3 * _PANEL + 1.2, 3 * (height + 0.35)),
                                layout="constrained")
    gray = {"cmap": "gray", "vmin": 0, "vmax": peak}
    shown = [_image(axes[0, 0], target, "target", **gray)]
    last = []
    for column, (name, image) in enumerate(images.items(), start=1):
        _image(axes[0, column], image, scored_title(name, image, target), **gray)
        error = errors[name]
        absolute = _image(axes[1, column], error, f"|error|, {name}", cmap=_ERRORS,
                          vmin=0, vmax=largest)
        squared = _image(axes[2, column], error**2, f"error², {name}", cmap=_ERRORS,
                         vmin=0, vmax=largest**2)
        last = [absolute, squared]
    shown += last
    labels = ("intensity", "|error| / target maximum", "(error / target maximum)²")
    for row, label in enumerate(labels):
        figure.colorbar(shown[row], ax=axes[row, :], label=label, shrink=0.9)
    for row in (1, 2):
        axes[row, 0].set_axis_off()
    if volume.std is not None:
        _image(axes[1, 0], volume.std[index] / peak, f"standard deviation, {method}", cmap=_ERRORS,
               vmin=0, vmax=largest)
    axes[2, 0].text(0.5, 0.5, f"{volume.name}\nslice {index + 1} of {len(volume.target)}\n"
                    f"R = {volume.acceleration:.2f}", ha="center", va="center", fontsize=9)
    return figure


def strip(volume: Scored, index: int) -> Figure:
    """One slice at every state, then its target; below each its absolute error. One window."""
    target, states = volume.target[index], volume.states[:, index]
    images = {}
    for step, image in zip(volume.steps, states, strict=True):
        name = "start" if step == 0 else f"step {step}"
        images[f"{name}\n{psnr(prediction=image[None], target=target[None]):.2f} dB"] = image
    images["target\n"] = target
    figure = plt.figure(figsize=size_of(images), layout="constrained")
    panels(figure, images, target, max(float(np.abs(image - target).max()) for image in states))
    return figure


class Panel(NamedTuple):
    """An image `[y, x]` in a gray window from `low` to `high`."""

    image: np.ndarray
    title: str
    low: float
    high: float


def row(shown: Sequence[Panel], title: str) -> Figure:
    """Images side by side, each in its own window and frame: a mask of ones shows too."""
    figure, axes = plt.subplots(1, len(shown), figsize=(11, 4.4), layout="constrained")
    for one, panel in zip(axes, shown, strict=True):
        one.imshow(panel.image, cmap="gray", vmin=panel.low, vmax=panel.high,
                   interpolation="nearest")
        one.set_title(panel.title, fontsize=10)
        one.set_xticks([])
        one.set_yticks([])
    figure.suptitle(title, fontsize=10)
    return figure


class Series(NamedTuple):
    """Points that belong together: `(cost, PSNR in dB)` each, and how they are drawn."""

    label: str
    points: Sequence[tuple[float, float]]
    color: Any
    marker: str = "o"


def costs(axes: Axes, series: Sequence[Series], xlabel: str) -> None:
    """PSNR against a cost, logarithmic, with a place for methods that cost nothing."""
    for one in series:
        axes.plot(*zip(*sorted(one.points), strict=True), marker=one.marker, color=one.color,
                  label=one.label)
    at = [cost for one in series for cost, _ in one.points]
    axes.set_xscale("symlog", linthresh=1)
    axes.set_xlim(-0.1 if min(at) < 1 else min(at) / 2, 2 * max(1, *at))
    axes.xaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=1, subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set(xlabel=xlabel, ylabel="PSNR (dB)")
    axes.grid(alpha=0.3)


def size_of(images: dict[str, np.ndarray]) -> tuple[float, float]:
    """Width and height of `panels` of these images, in inches."""
    blocks, columns = _blocks(len(images))
    rows, width = next(iter(images.values())).shape
    return columns * _PANEL + 1, blocks * (2 * _PANEL * rows / width + 0.5)


def panels(figure: FigureBase, images: dict[str, np.ndarray], target: np.ndarray,
           largest: float) -> None:
    """Draw images of one slice in rows of even length; below each its absolute error.

    Args:
        figure: to draw into.
        images: `[y, x] float32` by title. The target may be among them; it has no error.
        target: `[y, x] float32`, to whose maximum all are drawn.
        largest: error that ends the colors, in the units of the images.
    """
    peak = _peak(target)
    blocks, columns = _blocks(len(images))
    axes = figure.subplots(2 * blocks, columns, squeeze=False)
    for one in axes.flat:
        one.set_axis_off()
    gray = ScalarMappable(Normalize(0, peak), "gray")
    error = ScalarMappable(Normalize(0, largest / peak or 1.0), _ERRORS)
    for at, (title, image) in enumerate(images.items()):
        row, column = 2 * (at // columns), at % columns
        _image(axes[row, column], image, title, norm=gray.norm, cmap=gray.cmap)
        if image is not target:
            _image(axes[row + 1, column], np.abs(image - target) / peak, "", norm=error.norm,
                   cmap=error.cmap)
    for block in range(blocks):
        figure.colorbar(gray, ax=axes[2 * block, :], label="intensity")
        figure.colorbar(error, ax=axes[2 * block + 1, :], label="|error| / target maximum")


def _blocks(count: int) -> tuple[int, int]:
    blocks = -(-count // _PER_ROW)
    return blocks, -(-count // blocks)


def _peak(target: np.ndarray) -> float:
    return float(max(target.max(), np.finfo(np.float32).tiny))
