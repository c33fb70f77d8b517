"""The table and the figure of a grid of runs."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from flatjax.evaluation import figures, tables
from flatjax.evaluation.scoring import OBJECT, QUALITY, STABILITY
from flatjax.evaluation.tables import Row
from flatjax.experiments.grid import Grid, label, trials
from flatjax.experiments.outcomes import outcome
from flatjax.options import flattened

_STEPS = ("method.steps", "method.schedule.steps", "method.samples")  # of one trained network
_UPDATES = ("train.steps", "train.validate_every")


def write(grid: Grid, results: Path) -> str:
    """Write `table.{md,csv,json}` and `figure.{png,pdf}`; return the Markdown."""
    rows = make_rows(grid, results)
    text = markdown(grid, rows)
    tables.write(results, "table", text, [_plain(row) for row in rows])
    if rows:
        figures.save(draw(grid, rows), results / "figure.png")
    return text


def make_rows(grid: Grid, results: Path) -> list[Row]:
    """All rows that results are on file for, test set by test set, in the grid's order.

    An evaluation that changed nothing on one of its test sets has no second row there.
    """
    every, rows, known = trials(grid), [], set[str]()
    for run, options in grid.runs.items():
        for evaluation in options.evaluations:
            for trial in every:
                one = outcome(trial, evaluation, results) if trial.run == run else None
                if not one:
                    continue
                for test_set, metrics in one.sets.items():
                    same = f"{trial.name} {test_set} {metrics['slices']}"
                    if same not in known or len(one.sets) == 1:
                        rows.append(Row(
                            label(options.title or run, evaluation), test_set, (trial.seed,),
                            (metrics,), options.baseline or grid.baseline,
                            flattened(one.trained), flattened(one.evaluated)))
                    known.add(same)
    return tables.combine_seeds(rows)


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


@figures.styled
def draw(grid: Grid, rows: list[Row]) -> "figures.Figure":
    """PSNR and SSIM, for each test set.

    Each row has a line, which those share that differ in their number of updates alone; beside
    it network evaluations, if these differ, and PSNR along the steps. Where most rows differ from
    others in steps and samples alone, they are curves over network evaluations instead.
    """
    sets = {name: list(own) for name, own in groupby(rows, lambda row: row.test_set)}
    first = next(iter(sets.values()))
    if 2 * len(_alike(first, _STEPS)) <= len(first):
        return _by_cost(grid.title, sets)
    updates = sorted({row.trained["train.steps"] for row in rows})
    columns = 3 + (len({row.mean("nfe") for row in first}) > 1)
    height = len(_alike(first, _UPDATES)) * figures.LINE + 0.6
    figure = figures.blank((figures.WIDE, len(sets) * height + 0.2))
    axes = figure.subplots(len(sets), columns, sharey="row", squeeze=False)
    for line, (name, own) in zip(axes, sets.items(), strict=True):
        _by_run(line, own, lambda row: 3 + 1.2 * updates.index(row.trained["train.steps"]))
        line[0].set_title(name.replace("_", " "), loc="left")
    sizes = f"; small to large: {', '.join(f'{one:,}' for one in updates)} updates"
    figure.suptitle(grid.title + sizes * (len(updates) > 1))
    return figure


def _alike(rows: list[Row], keys: Iterable[str]) -> dict[str, list[Row]]:
    """Rows whose configs differ in nothing but these keys, by the label of the first."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(str([{key: one[key] for key in sorted({*one} - {*keys})}
                              for one in (row.trained, row.evaluated)]), []).append(row)
    return {own[0].label: own for own in found.values()}


def _by_run(axes: Sequence["figures.Axes"], rows: list[Row], size: Callable[[Row], float]) -> None:
    """Scores of each run, and PSNR above zero filling along its steps; far below, it is cut."""
    *scores, along = axes
    groups = _alike(rows, _UPDATES)
    figures.dots(scores, groups, size, start=len({row.zero_filled() for row in rows}) > 1)
    last = [own[-1] for own in groups.values()]
    gains = [row.values("psnr_per_step").mean(axis=0) - row.zero_filled()[0] for row in last]
    apart = np.ceil(max(1, *(gain.max() / 0.9 for gain in gains)))
    for at, (row, gain) in enumerate(zip(last, gains, strict=True)):
        along.axhline(at + 0.4, color="0.8", linewidth=0.4)
        times, height = np.linspace(0, 1, len(gain)), gain / apart
        color = figures.look(row.method)["color"]
        along.plot(times, at + 0.4 - np.maximum(height, -0.5), color=color, alpha=0.3)
        along.plot(times, at + 0.4 - np.where(height < -0.5, np.nan, height), ".-",
                   markersize=2.5, color=color)
    cut = "\npale: lower" * any(gain.min() < -0.5 * apart for gain in gains)
    along.set_xlabel(f"PSNR above zero filling\n(gray); a row is {apart:g} dB{cut}")
    along.set_xticks([0, 1], ["start", "end"])
    for text, side in zip(along.get_xticklabels(), ("left", "right"), strict=True):
        text.set_horizontalalignment(side)
    along.tick_params(left=False)


def _by_cost(title: str, sets: Mapping[str, list[Row]]) -> "figures.Figure":
    """Scores against network evaluations, joined where steps alone differ, for each `samples`.

    Colors tell methods, or the solvers of a single one; these are moved sideways by some percent,
    and filled as they were trained.
    """
    rows = [row for own in sets.values() for row in own]
    several = len({row.method for row in rows}) > 1
    key = "method.name" if several else "method.solver"
    kinds = [*dict.fromkeys(row.evaluated.get(key, "") for row in rows)]
    counts = sorted({row.evaluated.get("method.samples", 1) for row in rows})
    ticks: list[float] = []
    for cost in sorted({row.mean("nfe") for row in rows}, reverse=True):
        if not ticks or cost * (1 + len(counts) / 4) <= ticks[-1]:  # with room for its number
            ticks.append(cost)
    figure = figures.blank((figures.WIDE, len(sets) * 2.1 + 0.4))
    named: dict[str, Any] = {}
    parts: Any = figure.subfigures(1, 2)
    for part, score in zip(parts, figures.SCORES, strict=True):
        axes = part.subplots(len(sets), len(counts), sharey="row", squeeze=False)
        for line, (name, own) in zip(axes, sets.items(), strict=True):
            for one, count in zip(line, counts, strict=True):
                for curve in _alike([row for row in own if row.evaluated.get(
                        "method.samples", count) == count], _STEPS).values():
                    kind = curve[0].evaluated.get(key, "")
                    at = kinds.index(kind)
                    look = figures.look(kind, at) | {"markersize": 3}
                    aside = 1 if several else 1.03 ** (at - len(kinds) // 2)
                    points = sorted((row.mean("nfe") * aside, figures.COLUMNS[score](row).mean(),
                                     several or row.trained == row.evaluated) for row in curve)
                    one.plot([x for x, *_ in points], [y for _, y, _ in points], c=look["color"])
                    for x, y, filled in points:
                        one.plot(x, y, **look, mfc=look["color"] if filled else "white")
                    named[kind.replace("_", " ")], = one.plot([], [], **look)
                figures.logarithmic(one, [row.mean("nfe") for row in own], ticks)
                one.set(xlabel="network evaluations",
                        title=f"{count} sample{'s' * (count > 1)}" * (len(counts) > 1))
                one.grid()
            line[0].set(ylabel=f"{name.replace('_', ' ')}: {score}",
                        ylim=figures.at_least(line[0].get_ylim(), score))
    figure.suptitle(title)
    if len(kinds) > 1:
        figure.legend(named.values(), named, loc="outside lower center", ncols=len(named),
                      title="" if several else "open: trained with another solver or other steps")
    return figure
