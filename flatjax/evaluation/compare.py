"""Several runs on the same slices: one table, one figure.

`flatjax compare --workdir=A --workdir=B ... --output=DIR` scores every run as `evaluate` does, into
a folder each, and puts them side by side. Differences from the first run are paired by slice.
"""

from collections.abc import Mapping, Sequence
from itertools import count, groupby
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from flatjax import config as configuration
from flatjax.data.splits import restore_split
from flatjax.errors import InputError, check_at_least
from flatjax.evaluation import figures, tables, viewer
from flatjax.evaluation.animation import animate
from flatjax.evaluation.evaluate import evaluate_sets
from flatjax.evaluation.scoring import OBJECT, QUALITY, Scored
from flatjax.evaluation.tables import Row
from flatjax.files import make_folder
from flatjax.runs.workdir import at_test_time, load_config, load_params

Runs = Mapping[str, tuple[ConfigDict, str | Path]]  # by label, `(config, workdir)`


def labels(workdirs: Sequence[str | Path]) -> list[str]:
    """A name for each workdir: its folder's, with as many of those above as tell all apart.

    Raises:
        InputError: if one is named twice.
    """
    parts = [Path(workdir).absolute().resolve().parts[1:] for workdir in workdirs]
    for index, workdir in enumerate(workdirs):
        if parts[index] in parts[:index]:
            raise InputError(f"the workdir {workdir} is named twice; name every run once")
    kept = next(n for n in count(1) if len({one[-n:] for one in parts}) == len(parts))
    return ["_".join(one[-kept:]) for one in parts]


def at_acceleration(config: ConfigDict, acceleration: float) -> ConfigDict:
    """A copy of the config with another R; the center keeps its share of what is measured.

    Where R or the center was a range, the center stays as it was.

    Raises:
        InputError: for one below 1.
    """
    check_at_least(1, acceleration=acceleration)
    config = config.copy_and_resolve_references()
    acquisition = config.acquisition
    ranges = isinstance(acquisition.acceleration, tuple)
    if not ranges and not isinstance(acquisition.center_fraction, tuple):
        acquisition.center_fraction *= acquisition.acceleration / acceleration
    acquisition.acceleration = (float(acceleration),) if ranges else float(acceleration)
    return config


def compare(runs: Runs, output: str | Path, accelerations: Sequence[float] = ()) -> None:
    """Evaluate runs on the same slices and write them side by side.

    Writes `comparison.{md,csv,json}`, `comparison.{png,pdf}`, `trajectories.{png,pdf}`,
    `forming.gif`, an image forming under all runs, `report.html`, in which slices by all runs are
    seen interactively, and what `evaluate` writes into a folder per run; with several accelerations
    the pictures, the report and a folder per run for each of them.

    Args:
        runs: by label, of the same data and acquisition; the others are compared with the first.
        output: folder.
        accelerations: nominal R to evaluate all runs at, in place of that of their configs; the
            share of the center in what is measured stays.

    Raises:
        InputError: for a run that cannot be evaluated, or that is tested on other data than the
            first; before anything is evaluated where that can be told.
    """
    first = next(iter(runs))
    _check(runs)
    asked = {f"_R{r:g}": {label: at_acceleration(config, r) for label, (config, _) in runs.items()}
             for r in accelerations} or {"": {label: config for label, (config, _) in runs.items()}}
    for configs in asked.values():
        configuration.make_acquisition(configs[first])
    output = make_folder(output)
    rows: list[Row] = []
    for suffix, configs in asked.items():
        sets = {label: evaluate_sets(configs[label], workdir, output / f"{label}{suffix}")
                for label, (_, workdir) in runs.items()}
        found = tables.combine_seeds(
            Row(label, name, (0,), (one.metrics | {"slices": one.slices},), first)
            for label, own in sets.items() for name, one in own.items())
        rows += found
        tables.write(output, "comparison", markdown(rows), [_plain(row) for row in rows])
        if not found:
            continue
        main = found[0].test_set
        own = [row for row in found if row.test_set == main]
        shown = {label: each[main] for label, each in sets.items()}
        methods = {label: config.method.name for label, config in configs.items()}
        figures.save(draw(own, {label: one.middle for label, one in shown.items()}),
                     output / f"comparison{suffix}.png")
        viewer.write(output / f"report{suffix}.html", f"{', '.join(runs)} on {main}",
                     viewer.facts(own[0].metrics[0]),
                     {label: one.views for label, one in shown.items()}, methods,
                     [viewer.Table("Scores over all slices", _titles(first), tables.cells(
                         own, _titles(first), _score, first))])
        moving = {label: one.moving for label, one in shown.items() if one.moving}
        if moving:
            figures.save(figures.trajectories(moving, {label: methods[label] for label in moving},
                                              own[0].metrics[0]["num_slices"]),
                         output / f"trajectories{suffix}.png")
            animate(output / f"forming{suffix}.gif",
                    {label: shown[label].middle for label in moving})
    print(markdown(rows))
    print(f"the comparison is in {output}")


def _check(runs: Runs) -> None:
    """Refuse runs without weights, and those that are not tested on what the first one is."""
    first, config = next((label, config) for label, (config, _) in runs.items())
    dataset = configuration.make_dataset(config)
    tested: dict[str, set[str]] = {}
    for label, (own, workdir) in runs.items():
        for section in ("data", "acquisition"):
            a, b = config[section].to_dict(), own[section].to_dict()
            for key in sorted(a.keys() | b.keys()):
                if a.get(key) != b.get(key):
                    raise InputError(
                        f"{section}.{key} is {a.get(key)!r} for {first} but {b.get(key)!r} for "
                        f"{label}, expected the same slices for all runs; set it for all of them "
                        f"with --config.{section}.{key}=VALUE")
        own = at_test_time(own, load_config(workdir))
        load_params(workdir, own, configuration.make_method(own))
        test = restore_split(dataset, config.data, workdir).test
        tested[label] = {volume.name for volumes in test.values() for volume in volumes}
        if tested[label] != tested[first]:
            raise InputError(f"{first} and {label} are not tested on the same volumes "
                             f"({', '.join(sorted(tested[label] ^ tested[first]))} of one alone), "
                             "expected the same for all: their subjects were split in different "
                             "ways; evaluate on data that no run was trained on, by "
                             "--config.data.path=FOLDER and --config.data.split=False")


def markdown(rows: list[Row]) -> str:
    """The table, one for each acceleration and test set."""
    other = rows[0].label if rows else ""
    out = ["# Comparison", ""]
    for (nominal, _), found in groupby(rows, lambda row: (_nominal(row), row.test_set)):
        own = list(found)
        out += tables.section(
            own, _titles(other), _score, other,
            f"R = {nominal:g} (achieved {own[0].mean('acceleration', 'achieved'):.2f}), ")
    out.append("Mean ± std over volumes, if several. Differences are paired by slice, with 95 % "
               "bootstrap intervals over slices. NFE counts network evaluations per slice, of all "
               "samples; memory is that of the compiled reconstruction of one batch; drops are how "
               "often, and by how much in all, PSNR falls from one state to the next. Evaluated on "
               f"{tables.devices(rows)}.")
    return "\n".join(out)


def _titles(other: str) -> tuple[str, ...]:
    return ("run", "PSNR (dB)", "SSIM", "NMSE", f"PSNR - {other}", f"SSIM - {other}", "NFE",
            "ms per slice", "parameters", "memory (MB)", "drops (dB)", "straightness",
            "data residual")


def _score(row: Row, key: str) -> str:
    return tables.over_volumes(row.metrics[0], "method", key)


def _nominal(row: Row) -> float:
    return row.mean("acceleration", "nominal")


def _plain(row: Row) -> dict[str, Any]:
    """A row as `comparison.csv` and `comparison.json` hold it."""
    metrics = row.metrics[0]
    scores, inside = ({f"{key}{suffix}": metrics["method"][key][part] for key in keys
                       for suffix, part in (("", "mean"), ("_std", "std"))}
                      for keys in (QUALITY, OBJECT))
    return {"run": row.label, "method": metrics["method"]["name"], "test_set": row.test_set,
            "acceleration": _nominal(row),
            "achieved_acceleration": metrics["acceleration"]["achieved"],
            **scores, **tables.plain_differences(row), **{key: metrics[key] for key in (
                "nfe", "seconds_per_slice", "parameters", "peak_memory_bytes", "psnr_drops",
                "psnr_drop_db", "straightness", "measurement_residual", "num_slices",
                "num_volumes", "checkpoint_step", "config_hash", "device")}, **inside}


@figures.styled
def draw(rows: list[Row], shown: Mapping[str, Scored]) -> "figures.Figure":
    """A slice by all runs above its errors in one window; below, scores and costs of the runs.

    Rows are of one test set at one acceleration, and `shown` the same slice by each run.
    """
    one = next(iter(shown.values()))
    target, found = one.target[0], {label: own.reconstruction[0] for label, own in shown.items()}
    height, below = figures.height_of(2 + len(found), target), len(rows) * figures.LINE + 0.8
    figure = figures.blank((figures.WIDE, height + below))
    parts: Any = figure.subfigures(2, 1, height_ratios=(height, below))
    upper, lower = parts
    figures.panels(upper, {"zero-filled": one.zero_filled[0]} | found, target, found)
    upper.suptitle(f"{one.name}, R = {_nominal(rows[0]):g}")
    figures.dots(lower.subplots(1, len(figures.COLUMNS), sharey=True),
                 {row.label: [row] for row in rows}, start=True)
    lower.suptitle(f"mean over {rows[0].test_set}; time on {rows[0].metrics[0]['device']}")
    return figure
