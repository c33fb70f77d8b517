"""Figures of images, of scores, and of the states on the way to an image, made to be printed.

They are 180 mm wide (`WIDE`), or a column of 88 mm (`COLUMN`), with text of 7 points, and a method
has one color and marker in all of them. Images of one figure share one gray window, from 0 to the
target's maximum, and their error maps share one color scale: nothing is stretched to look better.
matplotlib is imported where something is drawn, and pyplot with its backends never.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from flatjax.evaluation.metrics import psnr, ssim
from flatjax.evaluation.scoring import Measures, Scored
from flatjax.evaluation.tables import Row
from flatjax.files import printable, write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, FigureBase

COLUMN, WIDE = 88 / 25.4, 180 / 25.4  # inches
LINE = 4.2 / 25.4  # inches, of a table's line in a figure
# Okabe and Ito's colors, which color-blind readers tell apart, with gray in place of yellow.
_LOOKS = {"flat": ("#D55E00", "o"), "varnet": ("#0072B2", "o"), "flow_matching": ("#009E73", "s"),
          "mc_ddpm": ("#CC79A7", "s"), "vanilla": ("#E69F00", "o"), "modl": ("#56B4E9", "o"),
          "score_sde": ("#000000", "s"), "unet": ("#000000", "^"), "dds": ("#888888", "s"),
          "compressed_sensing": ("#888888", "^"), "cg_sense": ("#888888", "o"),
          "zero_filled": ("#888888", "x")}
COLORS = [*dict.fromkeys(color for color, _ in _LOOKS.values())]
_LINES = ("-", "--", ":", "-.")  # of runs of one method
_STYLE: Any = {
    "font.size": 7, "axes.titlesize": "medium", "figure.titlesize": "medium",
    "lines.linewidth": 1, "lines.markersize": 4, "axes.linewidth": 0.5, "grid.linewidth": 0.4,
    "grid.color": "0.85", "axes.axisbelow": True, "axes.prop_cycle": f"cycler(color={COLORS})",
    "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False,
    "image.interpolation": "none", "pdf.fonttype": 42, "savefig.dpi": 220}

COLUMNS: dict[str, Callable[[Row], np.ndarray]] = {  # what `dots` shows, for each seed
    "PSNR (dB)": lambda row: row.values("method", "psnr", "mean"),
    "SSIM": lambda row: row.values("method", "ssim", "mean"),
    "network evaluations": lambda row: row.values("nfe"),
    "ms per slice": lambda row: 1000 * row.values("seconds_per_slice")}
SCORES = {"PSNR (dB)": 1.0, "SSIM": 0.02}  # and the least that an axis of them spans
_TICKS = (0, *(digit * 10**power for power in range(7) for digit in (1, 3)))  # of costs
_PER_ROW = 8  # at most
_BAND = (10, 90)  # percentiles of the images
_MEASURES = {"psnr": "PSNR (dB)", "ssim": "SSIM", "path_distance": "distance to the ideal path",
             "straightness": "straightness so far", "residual": "||M k - y|| / ||y||"}
_FLOORS = {"path_distance": 1e-3, "residual": 1e-3}  # of logarithmic axes; less is drawn there


@contextmanager
def _in_style() -> Iterator[None]:
    from matplotlib import rc_context
    with rc_context(_STYLE):
        yield


styled = _in_style()  # decorates what draws or saves


def blank(size: tuple[float, float]) -> "Figure":
    """A figure without anything, its width and height in inches."""
    from matplotlib.figure import Figure
    return Figure(size, layout="constrained")


@styled
def save(figure: "Figure", path: Path, *, pdf: bool = True) -> None:
    """Write a figure as PNG of 256 colors, and as PDF beside it."""
    def write(temporary: Path) -> None:
        figure.savefig(temporary)
        with Image.open(temporary) as image:
            image.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE).save(temporary)

    take_literally(figure)
    write_atomically(path, write)
    if pdf:
        write_atomically(path.with_suffix(".pdf"), figure.savefig)


def take_literally(figure: "Figure") -> None:
    """Draw names in the texts of a figure as they are: a `$` in them begins no formula."""
    from matplotlib.text import Text
    for text in figure.findobj(Text):
        if isinstance(text, Text) and text.get_text():  # not of ticks, which are not there yet
            text.set_text(printable(text.get_text()))
            text.set_parse_math(False)


def look(method: str, at: int = 6) -> dict[str, Any]:
    """Color and marker of a method; of what is none, the color `at` that place."""
    return dict(zip(("color", "marker"), _LOOKS.get(method, (COLORS[at % 8], "o")), strict=True))


@styled
def comparison(shown: Scored, method: str) -> "Figure":
    """Target, zero filling, the states between and the reconstruction of one slice, with errors.

    Colors of errors end where the reconstruction's do. Below the target, in the same window, the
    standard deviation over posterior samples of a method that draws them. The slice is a volume's
    `at`.
    """
    images = {"zero-filled": shown.zero_filled[0]}
    images |= {f"step {step}": state[0] for step, state in zip(
        shown.steps[1:], shown.states[1:], strict=True)
        if not np.array_equal(state, shown.reconstruction)}
    images[method] = shown.reconstruction[0]
    target = shown.target[0]
    figure = blank((WIDE, height_of(1 + len(images), target)))
    panels(figure, images, target, [method], std=None if shown.std is None else shown.std[0])
    figure.suptitle(f"{shown.name}, R = {shown.acceleration:.2f}")
    return figure


class Panel(NamedTuple):
    """An image `[y, x]` in a gray window from `low` to `high`."""

    image: np.ndarray
    title: str
    low: float
    high: float


@styled
def row(shown: Sequence[Panel], title: str) -> "Figure":
    """Images side by side, each in its own window and frame: a mask of ones shows too."""
    ratio = max(height / width for height, width in (panel.image.shape for panel in shown))
    figure = blank((WIDE, WIDE / len(shown) * ratio + 0.75))
    for one, panel in zip(figure.subplots(1, len(shown)), shown, strict=True):
        one.imshow(panel.image, cmap="gray", vmin=panel.low, vmax=panel.high)
        one.set(title=panel.title, xticks=[], yticks=[])
        one.spines[:].set_visible(True)
    figure.suptitle(title)
    return figure


def dots(axes: Sequence["Axes"], groups: Mapping[str, Sequence[Row]],
         size: Callable[[Row], float] = lambda row: 4.0, *, start: bool = False) -> None:
    """Draw a line of dots for each group of rows, in axes for the first of `COLUMNS`.

    A dot is the mean over seeds, which are bars; its look is that of the row's method. A cross is
    what zero filling scores, if the `start` is asked for.
    """
    every = [row for own in groups.values() for row in own]
    bars = any(len(row.seeds) > 1 for row in every)
    for one, (title, value) in zip(axes, COLUMNS.items(), strict=False):
        for at, own in enumerate(groups.values()):
            for row in own:
                each = value(row)
                one.plot(each.mean(), at, markersize=size(row), **look(row.method))
                if len(each) > 1 and title in SCORES:
                    one.plot(each, np.full(len(each), at), "|k", markersize=6, markeredgewidth=0.6)
            if start and title in SCORES:
                one.plot(own[0].zero_filled()[title == "SSIM"], at, "x", color=COLORS[-1])
        if title in SCORES:
            one.set_xlim(*at_least(one.get_xlim(), title))
            title += "\nbars: each seed" * bars + "\ncrosses: zero filling" * start
        else:
            logarithmic(one, [value(row).mean() for row in every])
        one.set_xlabel(title)
        one.tick_params(left=False)
        one.grid()
    axes[0].set_yticks(range(len(groups)), [name.replace("_", " ") for name in groups])
    axes[0].set_ylim(len(groups), -0.6)


def at_least(limits: tuple[float, float], score: str) -> tuple[float, float]:
    """Limits of the axis of a score such that what is little looks little."""
    middle, half = sum(limits) / 2, max(limits[1] - limits[0], SCORES[score]) / 2
    return middle - half, middle + half


def logarithmic(axes: "Axes", costs: Sequence[float], ticks: Sequence[float] = _TICKS) -> None:
    """Make the x axis logarithmic, with a place for what costs nothing."""
    low, high = min(costs), max(1, *costs)
    spare = max(1.4, (12 * low / high) ** 0.5)  # a decade at least, for two ticks
    left, right = low / spare if low >= 1 else -0.2, high * spare
    axes.set_xscale("symlog", linthresh=1)
    ticks = [tick for tick in ticks if left <= tick <= right]
    axes.set_xticks(ticks, [f"{tick:.0f}" for tick in ticks])
    axes.set_xlim(left, right)
    axes.minorticks_off()


def height_of(count: int, target: np.ndarray) -> float:
    """Height of `panels` of so many images with the target, in inches, where they are `WIDE`."""
    blocks, columns = _blocks(count)
    height, width = target.shape
    return blocks * (2 * WIDE / columns * height / width + 0.35)


def panels(figure: "FigureBase", images: Mapping[str, np.ndarray], target: np.ndarray,
           judged: Iterable[str], std: np.ndarray | None = None,
           inside: np.ndarray | None = None) -> None:
    """Draw the target and images of it in rows of even length; below each its absolute error.

    Args:
        figure: to draw into.
        images: `[y, x] float32` by name.
        target: `[y, x] float32`, to whose maximum all are drawn.
        judged: the images whose errors end the colors: at their 99.9th percentile, the median over
            images, for one wild image should not hide the errors of the others.
        std: standard deviation `[y, x] float32` to draw below the target, as an error.
        inside: region `[y, x] bool` that errors and scores are of; the whole image if it is None.
    """
    peak = float(max(target.max(), np.finfo(np.float32).tiny))
    region = np.ones(target.shape, bool) if inside is None else inside
    errors = {name: region * np.abs(image - target) / peak for name, image in images.items()}
    largest = float(np.median([np.percentile(errors[name], 99.9) for name in judged])) or 1.0
    gray: Any = {"cmap": "gray", "vmin": 0, "vmax": peak}
    colors: Any = {"cmap": "magma", "vmin": 0, "vmax": largest}
    blocks, columns = _blocks(1 + len(images))
    axes = figure.subplots(2 * blocks, columns, squeeze=False)
    for one in axes.flat:
        one.set_axis_off()
    axes[0, 0].imshow(target, **gray)
    axes[0, 0].set_title("target\ndB / SSIM")
    for at, (name, image) in enumerate(images.items(), start=1):
        pair: Any = {"prediction": image[None], "target": target[None], "mask": region[None]}
        above, below = axes[2 * (at // columns):, at % columns][:2]
        above.imshow(image, **gray)
        above.set_title(f"{name.replace('_', ' ')}\n{psnr(**pair):.2f} / {ssim(**pair):.3f}")
        below.imshow(errors[name], **colors)
    if std is None:
        place: Any = {"cax": axes[1, 0].inset_axes((0, 0.6, 0.95, 0.07)), "location": "bottom"}
    else:
        axes[1, 0].imshow(std / peak, **colors)
        axes[1, 0].set_title("std of samples")
        place = {"ax": axes, "shrink": 0.5}
    figure.colorbar(axes[1, 1].images[0], **place, extend="max", ticks=[0, largest],
                    format="%.2g", label="|error| / target\nmaximum")


def _blocks(count: int) -> tuple[int, int]:
    blocks = -(-count // _PER_ROW)
    return blocks, -(-count // blocks)


@styled
def trajectories(runs: Mapping[str, Sequence[Measures]], methods: Mapping[str, str],
                 total: int) -> "Figure":
    """All measures along the time: the mean over slices, and a band of the middle 80 %.

    Volumes are those of each run, of whose method the name is told, and may be some of a set of
    `total` slices. Of a single run every slice is a thin line; of more than four no band is drawn.
    """
    figure = blank((WIDE, 0.5 * WIDE))
    *shown, key_place = figure.subplots(2, 3).flat
    looks = {name: look(method) | {"linestyle": _LINES[[*methods.values()][:at].count(method) % 4]}
             for at, (name, method) in enumerate(methods.items())}
    for one, (key, label) in zip(shown, _MEASURES.items(), strict=True):
        floor = _FLOORS.get(key, -np.inf)
        for name, volumes in runs.items():
            times = volumes[0].times
            values = np.concatenate([volume.states[key] for volume in volumes], axis=1)
            values = np.maximum(values[:, np.isfinite(values).all(axis=0)], floor)
            if not values.size:  # an empty slice has infinite PSNR
                continue
            if len(runs) == 1:
                one.plot(times, values, color="0.8", linewidth=0.4)
            if len(runs) <= 4:
                low, high = np.percentile(values, _BAND, axis=1)
                one.fill_between(times, low, high, alpha=0.2, linewidth=0,
                                 color=looks[name]["color"])
            one.plot(times, values.mean(axis=1), label=name.replace("_", " "), markersize=2.5,
                     **looks[name])
        one.set(xlabel="time t", title=f"{label}, cut at {floor:g}" if floor > 0 else label,
                xlim=(1.02, -0.02), yscale="log" if floor > 0 else "linear")
        one.grid()
    count = sum(volume.states["psnr"].shape[1] for volume in next(iter(runs.values())))
    key_place.set_axis_off()
    key_place.legend(*shown[-1].get_legend_handles_labels(), loc="center",
                     title=f"mean over {count} of {total} slices"
                     + "\nand their middle 80 %" * (len(runs) <= 4))
    return figure
