"""Figures of images, of scores against their cost, and of the states on the way to an image.

Images of one figure share one gray window, from 0 to the target's maximum, and their error maps
share one color scale: nothing is stretched to look better.

matplotlib is imported where something is drawn, and pyplot with its backends never.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from flatjax.evaluation import metrics
from flatjax.evaluation.scoring import Measures, Scored, quality
from flatjax.evaluation.tables import Row
from flatjax.files import printable, write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure, FigureBase

_PANEL = 2.0  # inches
_PER_ROW = 8  # at most
_BAND = (10, 90)  # percentiles of the images
_MEASURES = {"psnr": "PSNR (dB)", "ssim": "SSIM", "path_distance": "distance to the ideal path",
             "straightness": "straightness so far", "residual": "||M k - y|| / ||y||"}
_LOGARITHMIC = {"path_distance", "residual"}
_FLOOR = 1e-6  # of what is drawn on a logarithmic axis
_FRAMES, _HELD = 40, 10  # of an animation: from time 1 to 0, and of the result
_FRAME_RATE = 10


def blank(size: tuple[float, float]) -> "Figure":
    """A figure without anything, its width and height in inches."""
    from matplotlib.figure import Figure
    return Figure(size, layout="constrained")


def save(figure: "Figure", path: Path) -> None:
    """Write a figure."""
    _take_literally(figure)
    write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=110))


def _take_literally(figure: "Figure") -> None:
    """Draw names in the texts of a figure as they are: a `$` in them begins no formula."""
    from matplotlib.text import Text
    for text in figure.findobj(Text):
        if isinstance(text, Text) and text.get_text():  # not of ticks, which are not there yet
            text.set_text(printable(text.get_text()))
            text.set_parse_math(False)


def comparison(shown: Scored, method: str) -> "Figure":
    """Target, zero filling, every state after it and the reconstruction of one slice, with errors.

    Below the target, in the window of the errors, the standard deviation over posterior samples
    of a method that draws them. The slice is a volume's `at`.
    """
    images = {"zero-filled": shown.zero_filled[0]}
    images |= {f"step {step}": state[0] for step, state in zip(
        shown.steps[1:], shown.states[1:], strict=True)}
    images[method] = shown.reconstruction[0]
    target = shown.target[0]
    figure = blank(size_of(1 + len(images), target))
    panels(figure, images, target,
           max(float(np.abs(image - target).max()) for image in images.values()),
           std=None if shown.std is None else shown.std[0])
    figure.suptitle(f"{shown.name}, R = {shown.acceleration:.2f}", fontsize=10)
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


def colors_of(rows: Sequence[Row]) -> dict[str, Any]:
    """A color for each label."""
    from matplotlib import colormaps
    labels = list(dict.fromkeys(row.label for row in rows))
    colors = colormaps["turbo"](np.linspace(0.05, 0.95, len(labels)))
    return dict(zip(labels, colors, strict=True))


def costs(axes: "Axes", rows: Sequence[Row], cost: Callable[[Row], float],
          colors: Mapping[str, Any]) -> bool:
    """PSNR against a cost, logarithmic, with a place for methods that cost nothing.

    Rows of a series are joined, and called by the words that their labels have in common; returns
    whether there are such.
    """
    from matplotlib.ticker import ScalarFormatter, SymmetricalLogLocator
    series: dict[str, list[Row]] = {}
    for row in rows:
        series.setdefault(row.series, []).append(row)
    joined = len(series) < len(rows)
    for own, marker in zip(series.values(), cycle("os^" if joined else "o"), strict=False):
        first, *others = (row.label.replace(",", "").split() for row in own)
        name = " ".join(word for word in first if all(word in other for other in others)
                        ) or own[0].label
        points = sorted((cost(row), row.mean("method", "psnr", "mean")) for row in own)
        axes.plot(*zip(*points, strict=True), marker=marker, label=name, color=colors[own[0].label])
    at = [cost(row) for row in rows]
    axes.set_xscale("symlog", linthresh=1)
    axes.set_xlim(-0.1 if min(at) < 1 else min(at) / 2, 2 * max(1, *at))
    axes.xaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=1, subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set_ylabel("PSNR (dB)")
    axes.grid(alpha=0.3)
    return joined


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


def trajectories(runs: Mapping[str, Sequence[Measures]]) -> "Figure":
    """All measures along the time: the mean over slices, and a band of the middle 80 %.

    Volumes are those of each method; of a single method every slice is a thin line.
    """
    figure = blank((3.4 * len(_MEASURES), 3.4))
    axes = figure.subplots(1, len(_MEASURES))
    for one, (key, label) in zip(axes, _MEASURES.items(), strict=True):
        for color, (name, volumes) in enumerate(runs.items()):
            times = volumes[0].times
            values = np.concatenate([volume.states[key] for volume in volumes], axis=1)
            if key in _LOGARITHMIC:
                values = np.maximum(values, _FLOOR)
            values = values[:, np.isfinite(values).all(axis=0)]  # an empty slice has infinite PSNR
            if not values.size:
                continue
            if len(runs) == 1:
                one.plot(times, values, color="0.8", linewidth=0.6)
            low, high = np.percentile(values, _BAND, axis=1)
            one.fill_between(times, low, high, alpha=0.2, linewidth=0, color=f"C{color}")
            one.plot(times, values.mean(axis=1), marker=".", markersize=5,
                     label=f"{name}, mean of {values.shape[1]}", color=f"C{color}")
        one.set(xlabel="time t", title=label, xlim=(1.02, -0.02),
                yscale="log" if key in _LOGARITHMIC else "linear")
        one.grid(alpha=0.3)
    axes[0].legend(fontsize=7)
    return figure


def animate(path: Path, shown: Mapping[str, Scored]) -> None:
    """Write a GIF of one slice forming under several methods side by side, then its target.

    Every method shows the last state that it has reached at the frame's time. One gray window.
    """
    from matplotlib.animation import FuncAnimation, PillowWriter
    target = next(iter(shown.values())).target[0]
    height, width = target.shape
    figure = blank((2 * (len(shown) + 1), 2.6 * height / width))
    axes = figure.subplots(1, len(shown) + 1)
    gray = {"cmap": "gray", "vmin": 0, "vmax": max(float(target.max()), np.finfo(np.float32).tiny),
            "interpolation": "nearest"}
    images = [one.imshow(target, **gray) for one in axes]
    axes[-1].set_title("target\n\n", fontsize=8)
    for one in axes:
        one.set_axis_off()

    def show(time: float) -> None:
        for one, image, (name, run) in zip(axes, images, shown.items(), strict=False):
            reached = max(np.count_nonzero(run.times >= time - 1e-6), 1) - 1
            state = run.states[reached]
            image.set_data(state[0])
            one.set_title(f"{name}\nt = {run.times[reached]:.2f}\n"
                          f"{metrics.psnr(prediction=state, target=target[None]):.1f} dB",
                          fontsize=8)
        _take_literally(figure)

    movie = FuncAnimation(figure, show, [*np.linspace(1, 0, _FRAMES), *[0.0] * _HELD])
    write_atomically(path, lambda temporary: movie.save(
        temporary, writer=PillowWriter(fps=_FRAME_RATE), dpi=80))
