"""Figures of images, of scores against their cost, and of one evaluation.

Images of one figure share one gray window, from 0 to the target's maximum, and their error maps
share one color scale: nothing is stretched to look better.

matplotlib is imported where something is drawn, and pyplot with its backends never.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from flatjax.evaluation import trajectory
from flatjax.evaluation.scoring import Scored, quality
from flatjax.evaluation.tables import Row
from flatjax.files import printable, write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure, FigureBase

_PANEL = 2.0  # inches
_PER_ROW = 8  # at most


def draw_run(folder: Path, volumes: list[Scored], method: str) -> None:
    """Draw volumes of a test set into its folder, replacing what an earlier evaluation drew.

    Of each volume the middle slice with its states and errors; of all slices the measures of all
    states, as a figure and as `trajectory.csv`, a row per image and state. The states of the first
    volume's middle slice are kept in `trajectory.h5`.
    """
    for volume in volumes:
        save(comparison(volume, len(volume.target) // 2, method),
             folder / f"comparison_{volume.stem}.png")
    moving = [volume for volume in volumes if len(volume.states) > 1]
    if moving:
        along = trajectory.analyze(moving)
        names = [f"{volume.stem} {index}" for volume in moving
                 for index in range(len(volume.target))]
        trajectory.write_table(folder / "trajectory.csv", names, along)
        save(trajectory.draw({method: along}), folder / "trajectory.png")
        trajectory.write_states(folder / "trajectory.h5", moving[0], len(moving[0].target) // 2)


def blank(size: tuple[float, float]) -> "Figure":
    """A figure without anything, its width and height in inches."""
    from matplotlib.figure import Figure
    return Figure(size, layout="constrained")


def save(figure: "Figure", path: Path) -> None:
    """Write a figure. Its texts hold names of files: a `$` in them begins no formula."""
    from matplotlib.text import Text
    for text in figure.findobj(Text):
        if isinstance(text, Text) and text.get_text():  # not of ticks, which are not there yet
            text.set_text(printable(text.get_text()))
            text.set_parse_math(False)
    write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=110))


def comparison(volume: Scored, index: int, method: str) -> "Figure":
    """Target, zero filling, every state after it and the reconstruction of one slice, with errors.

    Below the target, in the window of the errors, the standard deviation over posterior samples
    of a method that draws them.
    """
    shown = {"zero-filled": volume.zero_filled[index]}
    shown |= {f"step {step}": state[index] for step, state in zip(
        volume.steps[1:], volume.states[1:], strict=True)}
    shown[method] = volume.reconstruction[index]
    target = volume.target[index]
    figure = blank(size_of(1 + len(shown), target))
    panels(figure, shown, target, max(float(np.abs(image - target).max())
                                      for image in shown.values()),
           std=None if volume.std is None else volume.std[index])
    figure.suptitle(f"{volume.name}, slice {index + 1} of {len(volume.target)}, "
                    f"R = {volume.acceleration:.2f}", fontsize=10)
    return figure


class Panel(NamedTuple):
    """An image `[y, x]` in a gray window from `low` to `high`."""

    image: np.ndarray
    title: str
    low: float
    high: float


def row(shown: Sequence[Panel], title: str) -> "Figure":
    """Images side by side, each in its own window and frame: a mask of ones shows too."""
    figure = blank((11, 4.4))
    for one, panel in zip(figure.subplots(1, len(shown)), shown, strict=True):
        one.imshow(panel.image, cmap="gray", vmin=panel.low, vmax=panel.high,
                   interpolation="nearest")
        one.set_title(panel.title, fontsize=10)
        one.set_xticks([])
        one.set_yticks([])
    figure.suptitle(title, fontsize=10)
    return figure


def colors_of(labels: Sequence[str]) -> dict[str, Any]:
    """A color for each label."""
    from matplotlib import colormaps
    colors = colormaps["turbo"](np.linspace(0.05, 0.95, len(labels)))
    return dict(zip(labels, colors, strict=True))


def costs(axes: "Axes", series: Collection[Sequence[Row]], cost: Callable[[Row], float],
          colors: Mapping[str, Any]) -> None:
    """PSNR against a cost, logarithmic, with a place for methods that cost nothing.

    Rows of a series are joined, and called by the words that their labels have in common.
    """
    from matplotlib.ticker import ScalarFormatter, SymmetricalLogLocator
    joined = any(len(rows) > 1 for rows in series)
    for rows, marker in zip(series, cycle("os^" if joined else "o"), strict=False):
        first, *others = (row.label.replace(",", "").split() for row in rows)
        name = " ".join(word for word in first if all(word in other for other in others)
                        ) or rows[0].label
        points = sorted((cost(row), row.mean("method", "psnr", "mean")) for row in rows)
        axes.plot(*zip(*points, strict=True), marker=marker, label=name,
                  color=colors[rows[0].label])
    at = [cost(row) for rows in series for row in rows]
    axes.set_xscale("symlog", linthresh=1)
    axes.set_xlim(-0.1 if min(at) < 1 else min(at) / 2, 2 * max(1, *at))
    axes.xaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=1, subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set_ylabel("PSNR (dB)")
    axes.grid(alpha=0.3)


def size_of(count: int, target: np.ndarray) -> tuple[float, float]:
    """Width and height of `panels` of so many images with the target, in inches."""
    blocks, columns = _blocks(count)
    height, width = target.shape
    return columns * _PANEL + 1, blocks * (2 * _PANEL * height / width + 0.5)


def panels(figure: "FigureBase", images: Mapping[str, np.ndarray], target: np.ndarray,
           largest: float, std: np.ndarray | None = None) -> None:
    """Draw the target and images of it in rows of even length; below each its absolute error.

    Args:
        figure: to draw into.
        images: `[y, x] float32` by name.
        target: `[y, x] float32`, to whose maximum all are drawn.
        largest: error that ends the colors, in the units of the images.
        std: standard deviation `[y, x] float32` to draw below the target, as an error.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    peak = float(max(target.max(), np.finfo(np.float32).tiny))
    blocks, columns = _blocks(1 + len(images))
    axes = figure.subplots(2 * blocks, columns, squeeze=False)
    for one in axes.flat:
        one.set_axis_off()
    gray = ScalarMappable(Normalize(0, peak), "gray")
    error = ScalarMappable(Normalize(0, largest / peak or 1.0), "magma")
    _image(axes[0, 0], target, "target\n", gray)
    if std is not None:
        _image(axes[1, 0], std / peak, "standard deviation", error)
    for at, (name, image) in enumerate(images.items(), start=1):
        scores = quality(prediction=image[None], target=target[None])
        above, below = axes[2 * (at // columns):, at % columns][:2]
        _image(above, image, f"{name}\n{scores['psnr']:.2f} dB, SSIM {scores['ssim']:.3f}", gray)
        _image(below, np.abs(image - target) / peak, "", error)
    for block in range(blocks):
        figure.colorbar(gray, ax=axes[2 * block, :], label="intensity")
        figure.colorbar(error, ax=axes[2 * block + 1, :], label="|error| / target maximum")


def _image(axes: "Axes", image: np.ndarray, title: str, colors: "ScalarMappable") -> None:
    norm: Any = colors.norm  # which the stubs call by a protocol
    axes.imshow(image, interpolation="nearest", norm=norm, cmap=colors.cmap)
    axes.set_title(title, fontsize=9)


def _blocks(count: int) -> tuple[int, int]:
    blocks = -(-count // _PER_ROW)
    return blocks, -(-count // blocks)
