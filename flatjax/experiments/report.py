"""The table and the figure of a grid of runs."""

import csv
import io
import json
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flatjax.evaluation import report
from flatjax.evaluation.statistics import Difference, paired_difference
from flatjax.experiments.grid import Grid, label, trials
from flatjax.experiments.outcomes import outcomes
from flatjax.files import write_text

_SHOWN_BELOW = 12.0  # dB of a curve below zero filling; the noise that samplers start from is lower


class Row(NamedTuple):
    """An evaluation of a run on one test set, over its seeds.

    Attributes:
        label: see `grid.label`.
        test_set: its name.
        seeds: of the trainings it holds.
        metrics: per seed, as in `metrics.json`, with the scores of `"slices"`.
        series: the same for rows that differ in nothing but their number of steps.
        baseline: label of the row that it is compared with.
        against: that one in PSNR and SSIM, if it is there and another row.
    """

    label: str
    test_set: str
    seeds: tuple[int, ...]
    metrics: tuple[dict[str, Any], ...]
    series: str
    baseline: str
    against: dict[str, Difference] | None

    def values(self, *keys: str) -> np.ndarray:
        """An entry of the metrics, `[seeds, ...]`."""
        found = []
        for one in self.metrics:
            for key in keys:
                one = one[key]
            found.append(one)
        return np.array(found, np.float64)

    def std(self, key: str) -> float:
        """Standard deviation of a score over slices, averaged over the seeds."""
        return float(np.mean(np.std(self.values("slices", key), axis=1)))


def rows(grid: Grid, results: Path) -> list[Row]:
    """All rows that results are on file for, test set by test set.

    The differences are of scores averaged over the seeds of each.
    """
    found: dict[str, dict[str, dict[int, dict[str, Any]]]] = {}
    series = {}
    for name, trial, outcome in outcomes(grid, results):
        series[name] = _but_steps(outcome.trained) + _but_steps(outcome.evaluated)
        for test_set, metrics in outcome.sets.items():
            found.setdefault(test_set, {}).setdefault(name, {})[trial.seed] = metrics
    baselines = {label(name, evaluation): run.baseline or grid.baseline
                 for name, run in grid.runs.items() for evaluation in run.evaluations}
    out = []
    for test_set, own in found.items():
        for name, seeds in own.items():
            baseline = baselines[name]
            against = None if name == baseline else _against(seeds, own.get(baseline, {}))
            out.append(Row(name, test_set, tuple(seeds), tuple(seeds.values()), series[name],
                           baseline, against))
    return out


def _but_steps(config: dict[str, Any]) -> str:
    """A config as text, without its number of steps and its seed."""
    method = {key: value for key, value in config["method"].items() if key != "steps"}
    return json.dumps(config | {"method": method, "seed": None}, sort_keys=True)


def _against(own: dict[int, dict], base: dict[int, dict]) -> dict[str, Difference] | None:
    if not base:
        return None

    def scores(which: dict[int, dict], key: str) -> np.ndarray:
        return np.mean([one["slices"][key] for one in which.values()], axis=0)

    if scores(own, "psnr").shape != scores(base, "psnr").shape:
        return None  # other slices
    return {key: paired_difference(scores(own, key), scores(base, key)) for key in ("psnr", "ssim")}


def write(grid: Grid, results: Path) -> str:
    """Write `table.md`, `table.csv`, `table.json` and `figure.png`; return the Markdown."""
    lines = rows(grid, results)
    text = markdown(grid, lines)
    write_text(results / "table.md", text + "\n")
    plain = [_plain(row) for row in lines]
    write_text(results / "table.json", json.dumps(plain, indent=1) + "\n")
    if plain:
        table = io.StringIO()
        writer = csv.DictWriter(table, list(plain[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(plain)
        write_text(results / "table.csv", table.getvalue())
        report.save(draw(grid, lines), results / "figure.png")
    return text


def _plain(row: Row) -> dict[str, Any]:
    out: dict[str, Any] = {"test_set": row.test_set, "run": row.label,
                           "seeds": " ".join(map(str, row.seeds))}
    for key in ("psnr", "ssim", "nmse"):
        per_seed = row.values("method", key, "mean")
        out |= {key: float(per_seed.mean()), f"{key}_std": row.std(key),
                f"{key}_min": float(per_seed.min()), f"{key}_max": float(per_seed.max())}
    out["baseline"] = row.baseline
    for key in ("psnr", "ssim"):
        for end in Difference._fields:
            out[f"{key}_difference_{end}"] = getattr(row.against[key], end) if row.against else None
    out |= dict(zip(("zero_filled_psnr", "zero_filled_ssim"), zero_filled(row), strict=True))
    return out | {key: float(row.values(key).mean()) for key in (
        "nfe", "parameters", "straightness", "psnr_drops", "psnr_drop_db",
        "measurement_residual", "num_slices")}


def markdown(grid: Grid, lines: list[Row]) -> str:
    """The table; scores of several seeds as their mean and, in brackets, their range.

    With ± comes the standard deviation over slices.
    """
    count = len(trials(grid))
    complete = len({(row.label, seed) for row in lines for seed in row.seeds})
    wanted = sum(len(trial.evaluations) for trial in trials(grid))
    out = [f"# {grid.title}", ""]
    if complete < wanted:
        out += [f"{complete} of {wanted} evaluations of {count} runs are there.", ""]
    several = len({row.baseline for row in lines}) > 1
    other = "baseline" if several else grid.baseline
    head = ["run", "PSNR (dB)", "SSIM", *["baseline"] * several, f"PSNR - {other}",
            f"SSIM - {other}", "straightness", "drops (dB)", "residual", "NFE", "parameters"]
    for test_set in dict.fromkeys(row.test_set for row in lines):
        own = [row for row in lines if row.test_set == test_set]
        blank = own[0].metrics[0]
        title = (f"**{test_set}**, {blank['num_slices']} slices of {blank['num_volumes']} "
                 f"volume{'s' * (blank['num_volumes'] > 1)}")
        cells = [_cells(row, several) for row in own]
        columns = list(head)
        if len({zero_filled(row) for row in own}) == 1:
            title += "; zero-filled: {:.2f} dB, SSIM {:.3f}".format(*zero_filled(own[0]))
        else:  # under other acquisitions
            columns.insert(1, "zero-filled (dB)")
            cells = [[first, f"{zero_filled(row)[0]:.2f}", *rest]
                     for row, (first, *rest) in zip(own, cells, strict=True)]
        out += [title, "", f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
        out += [f"| {' | '.join(one)} |" for one in cells] + [""]
    devices = sorted({one["device"] for row in lines for one in row.metrics})
    seeds = sorted({trial.seed for trial in trials(grid)})
    out.append(f"Seeds {', '.join(map(str, seeds))}; means over volumes ± standard deviation over "
               "slices, in brackets the range over seeds. Differences are paired by slice, each "
               "row averaged over its seeds, with 95 % bootstrap intervals over slices. Residual: "
               "of the result from the measured samples, ||M k - y|| / ||y||. Evaluated on "
               f"{'; '.join(devices)}.")
    return "\n".join(out)


def zero_filled(row: Row) -> tuple[float, float]:
    """PSNR in dB and SSIM of zero filling, over the seeds."""
    return (float(row.values("zero_filled", "psnr", "mean").mean()),
            float(row.values("zero_filled", "ssim", "mean").mean()))


def _cells(row: Row, named: bool) -> list[str]:
    """A line of the table, with the name of its baseline or without."""
    def spread(key: str, digits: int) -> str:
        each = row.values("method", key, "mean")
        ends = f" ({each.min():.{digits}f} to {each.max():.{digits}f})" if len(each) > 1 else ""
        return f"{each.mean():.{digits}f} ± {row.std(key):.{digits}f}{ends}"

    def difference(key: str, digits: int) -> str:
        if not row.against:
            return ""
        mean, low, high = row.against[key]
        return f"{mean:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"

    return [row.label, spread("psnr", 2), spread("ssim", 4),
            *[row.baseline if row.against else ""] * named, difference("psnr", 2),
            difference("ssim", 4), f"{row.values('straightness').mean():.2f}",
            f"{row.values('psnr_drops').mean():.1f} ({row.values('psnr_drop_db').mean():.2f})",
            f"{row.values('measurement_residual').mean():.1e}",
            f"{row.values('nfe').mean():g}",
            f"{row.values('parameters').mean():,.0f}"]


def draw(grid: Grid, lines: list[Row]) -> Figure:
    """For each test set, PSNR of every run with each seed a dot, and PSNR along the steps.

    Where runs differ in network evaluations, PSNR against these too.
    """
    sets = list(dict.fromkeys(row.test_set for row in lines))
    labels = list(dict.fromkeys(row.label for row in lines))
    colours = {name: plt.get_cmap("turbo")(x) for name, x in
               zip(labels, np.linspace(0.05, 0.95, len(labels)), strict=True)}
    columns = 2 + (len({row.metrics[0]["nfe"] for row in lines}) > 1)
    height = max(3.2, 0.22 * len(labels) + 1.2)
    figure, axes = plt.subplots(len(sets), columns, squeeze=False, layout="constrained",
                                figsize=(6 * columns, height * len(sets)))
    for (scores, curves, *costs), test_set in zip(axes, sets, strict=True):
        own = [row for row in lines if row.test_set == test_set]
        start = len({zero_filled(row) for row in own}) > 1
        for at, row in enumerate(own):
            each = row.values("method", "psnr", "mean")
            if start:
                scores.plot(zero_filled(row)[0], at, "x", color="grey")
            scores.plot(each.mean(), at, "o", color=colours[row.label], markersize=8)
            scores.plot(each, np.full(len(each), at), "|", color="black", markersize=10)
            paths = [one["psnr_per_step"] for one in row.metrics]
            if len(paths[0]) > 1:
                steps = np.asarray(row.metrics[0]["steps"], float)
                curves.plot(steps / steps[-1], np.mean(paths, axis=0), marker=".",
                            color=colours[row.label])
        scores.set_yticks(range(len(own)), [row.label for row in own], fontsize=8)
        scores.invert_yaxis()
        scores.grid(axis="x", alpha=0.3)
        scores.set(xlabel="PSNR (dB); a bar per seed" + start * ", a cross for zero filling",
                   title=f"{grid.title}: {test_set}")
        curves.set(xlabel="share of the steps", ylabel="PSNR (dB)",
                   title="along the steps, same colours")
        low = min(zero_filled(row)[0] for row in own) - _SHOWN_BELOW
        curves.set_ylim(bottom=max(low, curves.get_ylim()[0]))
        curves.grid(alpha=0.3)
        for axis in costs:
            _draw_costs(axis, own, colours)
    return figure


def _draw_costs(axis: Axes, lines: list[Row], colours: dict[str, Any]) -> None:
    """PSNR against network evaluations; rows that differ in nothing but their steps are joined."""
    series: dict[str, list[Row]] = {}
    for row in lines:
        series.setdefault(row.series, []).append(row)
    joined = len(series) < len(lines)
    for marker, own in zip(cycle("os^" if joined else "o"), series.values()):
        points = sorted((row.values("nfe").mean(), row.values("method", "psnr", "mean").mean())
                        for row in own)
        axis.plot(*zip(*points, strict=True), marker=marker, color=colours[own[0].label],
                  label=_common([row.label for row in own]))
    if joined:
        axis.legend(fontsize=7, framealpha=0.5)
    axis.set_xscale("symlog", base=2, linthresh=1)  # compressed sensing has none
    axis.xaxis.set_major_formatter("{x:g}")
    axis.grid(alpha=0.3)
    axis.set(xlabel="network evaluations per slice", ylabel="PSNR (dB)",
             title="against their cost, " + ("joined where only steps differ" if joined
                                             else "same colours"))


def _common(labels: list[str]) -> str:
    """The words that all of the labels have, in the first one's order."""
    words = [label.replace(",", "").split() for label in labels]
    return " ".join(word for word in words[0] if all(word in other for other in words[1:]))
