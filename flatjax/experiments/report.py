"""The table and the figure of a grid of runs."""

import json
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from flatjax.evaluation import figures, tables
from flatjax.evaluation.scoring import OBJECT, QUALITY, STABILITY
from flatjax.evaluation.tables import Row
from flatjax.experiments.grid import Grid, label, trials
from flatjax.experiments.outcomes import outcome

_SHOWN_BELOW = 12.0  # dB of a curve below zero filling; the noise that samplers start from is lower


def write(grid: Grid, results: Path) -> str:
    """Write `table.md`, `table.csv`, `table.json` and `figure.png`; return the Markdown."""
    rows = make_rows(grid, results)
    text = markdown(grid, rows)
    tables.write(results, "table", text, [_plain(row) for row in rows])
    if rows:
        figures.save(draw(grid, rows), results / "figure.png")
    return text


def make_rows(grid: Grid, results: Path) -> list[Row]:
    """All rows that results are on file for, test set by test set, in the grid's order."""
    every, rows = trials(grid), []
    for run, options in grid.runs.items():
        for evaluation in options.evaluations:
            for trial in every:
                one = outcome(trial, evaluation, results) if trial.run == run else None
                if one:
                    series = _but_steps(one.trained) + _but_steps(one.evaluated)
                    rows += [Row(label(run, evaluation), test_set, (trial.seed,), (metrics,),
                                 options.baseline or grid.baseline, series)
                             for test_set, metrics in one.sets.items()]
    return tables.combine_seeds(rows)


def _but_steps(config: dict[str, Any]) -> str:
    """A config as text, without its number of steps and its seed."""
    method = config["method"] | {"steps": None}
    if "schedule" in method:
        method["schedule"] = method["schedule"] | {"steps": None}
    return json.dumps(config | {"method": method, "seed": None}, sort_keys=True)


def _plain(row: Row) -> dict[str, Any]:
    """A row as `table.csv` and `table.json` hold it."""
    out: dict[str, Any] = {"test_set": row.test_set, "run": row.label,
                           "seeds": " ".join(map(str, row.seeds))}
    for key in QUALITY:
        per_seed = row.values("method", key, "mean")
        out |= {key: float(per_seed.mean()), f"{key}_std": row.slice_std(key),
                f"{key}_min": float(per_seed.min()), f"{key}_max": float(per_seed.max())}
    psnr, ssim = row.zero_filled()
    out |= {"baseline": row.baseline, **tables.plain_differences(row),
            "zero_filled_psnr": psnr, "zero_filled_ssim": ssim}
    out |= {key: row.mean(key) for key in ("nfe", "parameters", *STABILITY, "num_slices")}
    return out | {key: row.mean("method", key, "mean") for key in OBJECT
                  if all(key in one["method"] for one in row.metrics)}  # not in older files


def markdown(grid: Grid, rows: list[Row]) -> str:
    """The table; scores of several seeds as their mean and, in brackets, their range.

    With ± comes the standard deviation over slices.
    """
    every = trials(grid)
    complete = len({(row.label, seed) for row in rows for seed in row.seeds})
    wanted = sum(len(trial.evaluations) for trial in every)
    out = [f"# {grid.title}", ""]
    if complete < wanted:
        out += [f"{complete} of {wanted} evaluations of {len(every)} runs are there.", ""]
    several = len({row.baseline for row in rows}) > 1
    other = "baseline" if several else grid.baseline
    for _, found in groupby(rows, lambda row: row.test_set):
        own = list(found)
        alike = len({row.zero_filled() for row in own}) == 1  # not so under other acquisitions
        titles = ("run", *["zero-filled (dB)"] * (not alike), "PSNR (dB)", "SSIM",
                  *["baseline"] * several, f"PSNR - {other}", f"SSIM - {other}", "straightness",
                  "drops (dB)", "residual", "NFE", "parameters")
        out += tables.section(own, titles, _score, other, start=alike)
    seeds = sorted({trial.seed for trial in every})
    out.append(f"Seeds {', '.join(map(str, seeds))}; means over volumes ± standard deviation over "
               "slices, in brackets the range over seeds. Differences are paired by slice, each "
               "row averaged over its seeds, with 95 % bootstrap intervals over slices. Residual: "
               "of the result from the measured samples, ||M k - y|| / ||y||. Evaluated on "
               f"{tables.devices(rows)}.")
    return "\n".join(out)


def _score(row: Row, key: str) -> str:
    """A score over its seeds."""
    each = row.values("method", key, "mean")
    low, high = (tables.spread(end, None, key) for end in (each.min(), each.max()))
    return tables.spread(each.mean(), row.slice_std(key), key) + (
        f" ({low} to {high})" if len(each) > 1 else "")


def draw(grid: Grid, rows: list[Row]) -> "figures.Figure":
    """For each test set, PSNR of every run with each seed a dot, and PSNR along the steps.

    Where runs differ in network evaluations, PSNR against these too.
    """
    sets = list(dict.fromkeys(row.test_set for row in rows))
    colors = figures.colors_of(rows)
    columns = 2 + (len({row.metrics[0]["nfe"] for row in rows}) > 1)
    height = max(3.2, 0.22 * len(colors) + 1.2)
    figure = figures.blank((6 * columns, height * len(sets)))
    axes = figure.subplots(len(sets), columns, squeeze=False)
    for (scores, curves, *costs), test_set in zip(axes, sets, strict=True):
        own = [row for row in rows if row.test_set == test_set]
        start = len({row.zero_filled() for row in own}) > 1
        for at, row in enumerate(own):
            each, color = row.values("method", "psnr", "mean"), colors[row.label]
            if start:
                scores.plot(row.zero_filled()[0], at, "x", color="gray")
            scores.plot(each.mean(), at, "o", color=color, markersize=8)
            scores.plot(each, np.full(len(each), at), "|", color="black", markersize=10)
            steps = row.values("steps")[0]
            if len(steps) > 1:
                curves.plot(steps / steps[-1], row.values("psnr_per_step").mean(axis=0),
                            marker=".", color=color)
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
            joined = figures.costs(axis, own, lambda row: row.mean("nfe"), colors)
            axis.set(xlabel="network evaluations per slice", title="against their cost, " + (
                "joined where only steps differ" if joined else "same colors"))
            if joined:
                axis.legend(fontsize=7, framealpha=0.5)
    return figure
