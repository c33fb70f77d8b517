"""The table and the figure of a grid of runs."""

import json
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flatjax.evaluation import figures, tables
from flatjax.evaluation.scoring import QUALITY
from flatjax.evaluation.statistics import seed_differences
from flatjax.evaluation.tables import COLUMNS, Row
from flatjax.experiments.grid import Grid, label, trials
from flatjax.experiments.outcomes import outcomes

_SHOWN_BELOW = 12.0  # dB of a curve below zero filling; the noise that samplers start from is lower


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
            base = {} if name == baseline else own.get(baseline, {})
            ours, theirs = ([one["slices"] for one in which.values()] for which in (seeds, base))
            against = seed_differences(ours, theirs, tables.PAIRED)
            out.append(Row(name, test_set, tuple(seeds.values()), against, tuple(seeds), baseline,
                           series[name]))
    return out


def _but_steps(config: dict[str, Any]) -> str:
    """A config as text, without its number of steps and its seed."""
    def left(section: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in section.items() if key != "steps"}

    method = left(config["method"])
    if "schedule" in method:
        method["schedule"] = left(method["schedule"])
    return json.dumps(config | {"method": method, "seed": None}, sort_keys=True)


def write(grid: Grid, results: Path) -> str:
    """Write `table.md`, `table.csv`, `table.json` and `figure.png`; return the Markdown."""
    lines = rows(grid, results)
    text = markdown(grid, lines)
    tables.write(results, "table", text, [_plain(row) for row in lines])
    if lines:
        figures.save(draw(grid, lines), results / "figure.png")
    return text


def _plain(row: Row) -> dict[str, Any]:
    out: dict[str, Any] = {"test_set": row.test_set, "run": row.label,
                           "seeds": " ".join(map(str, row.seeds))}
    for key in QUALITY:
        per_seed = row.values("method", key, "mean")
        out |= {key: float(per_seed.mean()), f"{key}_std": row.slice_std(key),
                f"{key}_min": float(per_seed.min()), f"{key}_max": float(per_seed.max())}
    out |= {"baseline": row.baseline, **tables.plain_differences(row)}
    out |= dict(zip(("zero_filled_psnr", "zero_filled_ssim"), row.zero_filled(), strict=True))
    return out | {key: row.mean(key) for key in (
        "nfe", "parameters", "straightness", "psnr_drops", "psnr_drop_db",
        "measurement_residual", "num_slices")} | tables.plain_scores(row)


def markdown(grid: Grid, lines: list[Row]) -> str:
    """The table; scores of several seeds as their mean and, in brackets, their range.

    With ± comes the standard deviation over slices.
    """
    complete = len({(row.label, seed) for row in lines for seed in row.seeds})
    wanted = sum(len(trial.evaluations) for trial in trials(grid))
    out = [f"# {grid.title}", ""]
    if complete < wanted:
        out += [f"{complete} of {wanted} evaluations of {len(trials(grid))} runs are there.", ""]
    several = len({row.baseline for row in lines}) > 1
    other = "baseline" if several else grid.baseline
    told = ("straightness", "drops (dB)", "residual", "NFE", "parameters")
    for test_set in dict.fromkeys(row.test_set for row in lines):
        own = [row for row in lines if row.test_set == test_set]
        alike = len({row.zero_filled() for row in own}) == 1  # not so under other acquisitions
        head = ["run", *["zero-filled (dB)"] * (not alike), "PSNR (dB)", "SSIM",
                *["baseline"] * several, f"PSNR - {other}", f"SSIM - {other}", *told]
        cells = [[row.label, *[f"{row.zero_filled()[0]:.2f}"] * (not alike), _score(row, "psnr"),
                  _score(row, "ssim"), *[row.baseline if row.against else ""] * several,
                  *(tables.difference(row, key) for key in tables.PAIRED),
                  *(COLUMNS[name](row) for name in told)] for row in own]
        start = f"; {tables.start(own[0])}" if alike else ""
        out += [f"**{test_set}**, {tables.size(own[0])}{start}", "",
                *tables.markdown(head, cells), ""]
    seeds = sorted({trial.seed for trial in trials(grid)})
    out.append(f"Seeds {', '.join(map(str, seeds))}; means over volumes ± standard deviation over "
               "slices, in brackets the range over seeds. Differences are paired by slice, each "
               "row averaged over its seeds, with 95 % bootstrap intervals over slices. Residual: "
               "of the result from the measured samples, ||M k - y|| / ||y||. Evaluated on "
               f"{tables.devices(lines)}.")
    return "\n".join(out)


def _score(row: Row, key: str) -> str:
    """A score over its seeds."""
    each = row.values("method", key, "mean")
    low, high = (tables.spread(end, None, key) for end in (each.min(), each.max()))
    return tables.spread(each.mean(), row.slice_std(key), key) + (
        f" ({low} to {high})" if len(each) > 1 else "")


def draw(grid: Grid, lines: list[Row]) -> Figure:
    """For each test set, PSNR of every run with each seed a dot, and PSNR along the steps.

    Where runs differ in network evaluations, PSNR against these too.
    """
    sets = list(dict.fromkeys(row.test_set for row in lines))
    labels = list(dict.fromkeys(row.label for row in lines))
    colors = {name: plt.get_cmap("turbo")(x) for name, x in
               zip(labels, np.linspace(0.05, 0.95, len(labels)), strict=True)}
    columns = 2 + (len({row.metrics[0]["nfe"] for row in lines}) > 1)
    height = max(3.2, 0.22 * len(labels) + 1.2)
    figure, axes = plt.subplots(len(sets), columns, squeeze=False, layout="constrained",
                                figsize=(6 * columns, height * len(sets)))
    for (scores, curves, *costs), test_set in zip(axes, sets, strict=True):
        own = [row for row in lines if row.test_set == test_set]
        start = len({row.zero_filled() for row in own}) > 1
        for at, row in enumerate(own):
            each = row.values("method", "psnr", "mean")
            if start:
                scores.plot(row.zero_filled()[0], at, "x", color="gray")
            scores.plot(each.mean(), at, "o", color=colors[row.label], markersize=8)
            scores.plot(each, np.full(len(each), at), "|", color="black", markersize=10)
            paths = [one["psnr_per_step"] for one in row.metrics]
            if len(paths[0]) > 1:
                steps = np.asarray(row.metrics[0]["steps"], float)
                curves.plot(steps / steps[-1], np.mean(paths, axis=0), marker=".",
                            color=colors[row.label])
        scores.set_yticks(range(len(own)), [row.label for row in own], fontsize=8)
        scores.invert_yaxis()
        scores.grid(axis="x", alpha=0.3)
        scores.set(xlabel="PSNR (dB); a bar per seed" + start * ", a cross for zero filling",
                   title=f"{grid.title}: {test_set}")
        curves.set(xlabel="share of the steps", ylabel="PSNR (dB)",
                   title="along the steps, same colors")
        low = min(row.zero_filled()[0] for row in own) - _SHOWN_BELOW
        curves.set_ylim(bottom=max(low, curves.get_ylim()[0]))
        curves.grid(alpha=0.3)
        for axis in costs:
            _draw_costs(axis, own, colors)
    return figure


def _draw_costs(axes: Axes, lines: list[Row], colors: dict[str, Any]) -> None:
    """PSNR against network evaluations; rows that differ in nothing but their steps are joined."""
    series: dict[str, list[Row]] = {}
    for row in lines:
        series.setdefault(row.series, []).append(row)
    joined = len(series) < len(lines)
    figures.costs(axes, [
        figures.Series(_common([row.label for row in own]),
                       [(row.mean("nfe"), row.mean("method", "psnr", "mean")) for row in own],
                       colors[own[0].label], marker)
        for marker, own in zip(cycle("os^" if joined else "o"), series.values())],
        "network evaluations per slice")
    if joined:
        axes.legend(fontsize=7, framealpha=0.5)
    axes.set_title("against their cost, " + ("joined where only steps differ" if joined
                                             else "same colors"))


def _common(labels: list[str]) -> str:
    """The words that all of the labels have, in the first one's order."""
    words = [label.replace(",", "").split() for label in labels]
    return " ".join(word for word in words[0] if all(word in other for other in words[1:]))
