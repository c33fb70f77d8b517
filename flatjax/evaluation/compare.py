"""Several runs on the same slices: one table, one figure.

`flatjax compare --workdir=A --workdir=B ... --output=DIR` scores every run as `evaluate` does, into
a folder each, and puts them side by side. Differences from the first run are paired by slice.
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from ml_collections import ConfigDict

from flatjax import config as configuration
from flatjax.data.base import Volume
from flatjax.data.batches import measure_volume, stack
from flatjax.data.splits import restore_split
from flatjax.errors import InputError, check_at_least
from flatjax.evaluation import figures, tables, trajectory
from flatjax.evaluation.evaluate import evaluate
from flatjax.evaluation.scoring import OBJECT, QUALITY
from flatjax.evaluation.tables import Row
from flatjax.files import make_folder, printable
from flatjax.mri import center_crop, combine
from flatjax.runs.workdir import at_test_time, load_config, load_params

Runs = Mapping[str, tuple[ConfigDict, str | Path]]  # by label, `(config, workdir)`


def labels(workdirs: Sequence[str | Path]) -> list[str]:
    """A name for each workdir: its folder's, with as many of those above as tell all apart.

    Raises:
        InputError: if one is named twice.
    """
    parts = [Path(printable(str(Path(workdir).absolute().resolve()))).parts[1:]
             for workdir in workdirs]
    for index, workdir in enumerate(workdirs):
        if parts[index] in parts[:index]:
            raise InputError(f"the workdir {workdir} is named twice; name every run once")
    count = next(n for n in itertools.count(1) if len({one[-n:] for one in parts}) == len(parts))
    return ["_".join(one[-count:]) for one in parts]


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


def compare(runs: Runs, output: str | Path, accelerations: Sequence[float] = ()) -> list[Row]:
    """Evaluate runs on the same slices and write them side by side.

    Writes `comparison.{md,csv,json}`, `comparison.png`, `trajectories.png` and `forming.gif`, an
    image forming under all runs, and what `evaluate` writes into a folder per run; with several
    accelerations the pictures and a folder per run for each of them.

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
    tested = _check(runs)
    asked = {f"_R{r:g}": {label: at_acceleration(config, r) for label, (config, _) in runs.items()}
             for r in accelerations} or {"": {label: config for label, (config, _) in runs.items()}}
    for configs in asked.values():
        configuration.make_acquisition(configs[first])
    output = make_folder(output)
    rows: list[Row] = []
    for suffix, configs in asked.items():
        folders = {label: output / f"{label}{suffix}" for label in runs}
        results = {label: tables.with_slices(evaluate(configs[label], workdir, folders[label]),
                                             folders[label])
                   for label, (_, workdir) in runs.items()}
        found = tables.make_rows({test_set: {label: {0: results[label][test_set]} for label in runs}
                                  for test_set in results[first]}, dict.fromkeys(runs, first))
        rows += found
        tables.write(output, "comparison", markdown(rows), [_plain(row) for row in rows])
        main = [row for row in found if row.test_set == found[0].test_set]
        if main:
            figures.save(draw(main, tested[main[0].test_set][0], configs[first], folders),
                         output / f"comparison{suffix}.png")
        moving = {row.label: folders[row.label] for row in main
                  if row.metrics[0]["steps"][-1] and configs[row.label].evaluation.figures}
        if moving:
            figures.save(trajectory.draw({
                label: trajectory.read_table(folder / "trajectory.csv")
                for label, folder in moving.items()}), output / f"trajectories{suffix}.png")
            trajectory.animate(output / f"forming{suffix}.gif", {
                label: trajectory.read_states(folder / "trajectory.h5")
                for label, folder in moving.items()})
    print(markdown(rows))
    print(f"the comparison is in {output}")
    return rows


def _check(runs: Runs) -> dict[str, list[Volume]]:
    """The test sets of all runs, once it is sure that they are the same and every run has weights.

    They have to be the same also where subjects were split.
    """
    first, config = next((label, config) for label, (config, _) in runs.items())
    dataset = configuration.make_dataset(config)
    sets: dict[str, dict[str, list[Volume]]] = {}
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
        sets[label] = restore_split(dataset, config.data, workdir).test
        names, wanted = ({volume.name for volumes in sets[which].values() for volume in volumes}
                         for which in (label, first))
        if names != wanted:
            raise InputError(f"{first} and {label} are not tested on the same volumes "
                             f"({', '.join(sorted(names ^ wanted))} of one alone), expected the "
                             "same for all: their subjects were split in different ways; evaluate "
                             "on data that no run was trained on, by --config.data.path=FOLDER and "
                             "--config.data.split=False")
    return sets[first]


def markdown(rows: list[Row]) -> str:
    """The table, one for each acceleration and test set."""
    told = ("NFE", "ms per slice", "parameters", "memory (MB)", "drops (dB)", "straightness",
            "data residual")
    columns = (tables.columns("run") | tables.score_columns(_score, QUALITY)
               | tables.difference_columns(rows[0].label if rows else "") | tables.columns(*told))
    out = []
    for nominal, test_set in dict.fromkeys((_nominal(row), row.test_set) for row in rows):
        own = [row for row in rows if (_nominal(row), row.test_set) == (nominal, test_set)]
        achieved = own[0].mean("acceleration", "achieved")
        out += [f"**{test_set}**, R = {nominal:g} (achieved {achieved:.2f}), "
                f"{tables.size(own[0])}; {tables.start(own[0])}", "",
                *tables.of_rows(own, columns), ""]
    out.append("Mean ± std over volumes, if several. Differences are paired by slice, with 95 % "
               "bootstrap intervals over slices. NFE counts network evaluations per slice, of all "
               "samples; memory is that of the compiled reconstruction of one batch; drops are how "
               "often, and by how much in all, PSNR falls from one state to the next. Evaluated on "
               f"{tables.devices(rows)}.")
    return "\n".join(out)


def _score(row: Row, key: str) -> str:
    return tables.over_volumes(row.metrics[0], "method", key)


def _nominal(row: Row) -> float:
    return row.metrics[0]["acceleration"]["nominal"]


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


def draw(rows: list[Row], volume: Volume, config: ConfigDict, folders: Mapping[str, Path]
         ) -> "figures.Figure":
    """A volume's middle slice by all runs above its errors in one window; below, PSNR by cost.

    Rows are of the volume's test set at the acceleration of the config, whatever its run;
    `evaluate` wrote into the folders.
    """
    slices = measure_volume(volume, configuration.make_acquisition(config))
    index = len(slices) // 2
    batch = stack(slices[index:index + 1])
    target, measured = np.asarray(batch.target[0]), batch.measurement
    start = center_crop(combine(measured.kspace, measured.maps, config.combine), target.shape)
    images = {"zero-filled": np.asarray(start[0])}
    for label, folder in folders.items():
        path = folder / "reconstructions" / f"{volume.name.removesuffix('.h5')}.h5"
        with h5py.File(path) as file:
            images[label] = file["reconstruction"][index]
    width, height = figures.size_of(1 + len(images), target)
    figure = figures.blank((max(9, width), height + 4.2))
    parts: Any = figure.subfigures(2, 1, height_ratios=(height, 4.2))
    upper, lower = parts
    # One wild image should not hide the errors of the others: colors end at the start's largest.
    figures.panels(upper, images, target, float(np.abs(images["zero-filled"] - target).max()))
    upper.suptitle(f"{volume.name}, slice {index + 1} of {len(slices)}, R = "
                   f"{_nominal(rows[0]):g}", fontsize=10)
    axes = lower.subplots(1, 2, sharey=True)
    series, colors = [[row] for row in rows], figures.colors_of([row.label for row in rows])
    figures.costs(axes[0], series, lambda row: row.mean("nfe"), colors)
    figures.costs(axes[1], series, lambda row: 1000 * row.mean("seconds_per_slice"), colors)
    for one in axes:
        one.axhline(rows[0].zero_filled()[0], color="gray", linestyle=":", label="zero-filled")
    axes[0].set_xlabel("network evaluations per slice")
    axes[1].set(xlabel=f"milliseconds per slice on {rows[0].metrics[0]['device']}", ylabel="")
    axes[0].legend(fontsize=7)
    lower.suptitle(f"mean over {rows[0].test_set}", fontsize=10)
    return figure
