"""Several runs on the same slices: one table, one figure.

`evaluate.py --workdir=A --workdir=B ... --output=DIR` scores every run as `evaluate` does, into a
folder each, and puts them side by side. Differences from the first run are paired by slice.
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter, SymmetricalLogLocator
from ml_collections import ConfigDict

from flatjax import config as configuration
from flatjax.data.base import Volume
from flatjax.data.batches import measure_volume, stack
from flatjax.data.subjects import settle_split
from flatjax.errors import InputError
from flatjax.evaluation import report, trajectory
from flatjax.evaluation.evaluate import at_test_time, evaluate, load_config, load_params
from flatjax.evaluation.scoring import QUALITY, quality
from flatjax.evaluation.statistics import Difference, paired_difference
from flatjax.files import make_folder, write_json, write_text
from flatjax.mri import center_crop, combine


class Row(NamedTuple):
    """A run on one test set at one acceleration.

    Attributes:
        run: its label.
        acceleration: nominal R.
        test_set: its name.
        metrics: as in `metrics.json`.
        slices: scores `[slices]` by name.
        against: the first run, in the measures of `slices`; None for the first run itself.
    """

    run: str
    acceleration: float
    test_set: str
    metrics: dict[str, Any]
    slices: dict[str, np.ndarray]
    against: dict[str, Difference] | None


def labels(workdirs: Sequence[str | Path]) -> list[str]:
    """A name for each workdir: its folder's, with as many of those above as tell all apart.

    Raises:
        InputError: if one is named twice.
    """
    parts = [Path(workdir).absolute().resolve().parts[1:] for workdir in workdirs]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["_".join(one[-count:]) for one in parts]
        if len(set(names)) == len(names):
            return names
    twice = next(w for i, w in enumerate(workdirs) if parts[i] in parts[:i])
    raise InputError(f"the workdir {twice} is named twice; name every run once")


def at_acceleration(config: ConfigDict, acceleration: float) -> ConfigDict:
    """A copy of the config with another R; the centre keeps its share of what is measured.

    Where R or the centre was a range, the centre stays as it was.

    Raises:
        InputError: for one below 1.
    """
    if not acceleration >= 1:
        raise InputError(f"acceleration is {acceleration:g}, expected at least 1")
    config = config.copy_and_resolve_references()
    acquisition = config.acquisition
    ranges = isinstance(acquisition.acceleration, tuple)
    if not ranges and not isinstance(acquisition.center_fraction, tuple):
        acquisition.center_fraction *= acquisition.acceleration / acceleration
    acquisition.acceleration = (float(acceleration),) if ranges else float(acceleration)
    return config


def compare(runs: dict[str, tuple[ConfigDict, str | Path]], output: str | Path,
            accelerations: Sequence[float] = ()) -> list[Row]:
    """Evaluate runs on the same slices and write them side by side.

    Writes `comparison.{md,csv,json}`, `comparison.png`, `trajectories.png` and `forming.gif`, an
    image on its way under all runs, and what `evaluate` writes into a folder per run; with several
    accelerations the pictures and a folder per run for each of them.

    Args:
        runs: by label, `(config, workdir)`, the first one being what the others are compared
            with. All have the same data and acquisition.
        output: folder.
        accelerations: nominal R to evaluate all runs at, in place of that of their configs; the
            share of the centre in what is measured stays.

    Raises:
        InputError: for a run that cannot be evaluated, or that is tested on other data than the
            first; before anything is evaluated where that can be told.
    """
    first = next(iter(runs))
    for label, (config, workdir) in runs.items():
        _check(label, config, first, runs[first][0])
        config = at_test_time(config, load_config(workdir))
        load_params(workdir, config, configuration.make_method(config))
    asked = {"": {label: config for label, (config, _) in runs.items()}}
    if accelerations:
        asked = {f"_R{acceleration:g}": {label: at_acceleration(config, acceleration)
                                         for label, config in asked[""].items()}
                 for acceleration in accelerations}
    for configs in asked.values():
        configuration.make_acquisition(configs[first])
    tested = _tested(runs)
    output = make_folder(output)
    rows: list[Row] = []
    for suffix, configs in asked.items():
        folders = {label: output / f"{label}{suffix}" for label in runs}
        results = {label: evaluate(configs[label], workdir, folders[label])
                   for label, (_, workdir) in runs.items()}
        found = tabulate(results, folders)
        rows += found
        _write(output, rows)
        if results[first]:
            main = next(iter(results[first]))
            own = [row for row in found if row.test_set == main]
            shown = panels(tested[main][0], configs[first], folders)
            report.save(draw(own, shown), output / f"comparison{suffix}.png")
            moving = {label: folder for label, folder in folders.items()
                      if results[label][main]["steps"][-1] and configs[label].evaluation.figures}
            if moving:
                ways = {label: trajectory.read_table(folder / "trajectory.csv")
                        for label, folder in moving.items()}
                report.save(trajectory.draw(ways), output / f"trajectories{suffix}.png")
                trajectory.animate(output / f"forming{suffix}.gif", {
                    label: trajectory.read_film(folder / "trajectory.h5")
                    for label, folder in moving.items()})
    print(markdown(rows))
    print(f"the comparison is in {output}")
    return rows


def _tested(runs: dict[str, tuple[ConfigDict, str | Path]]) -> dict[str, list[Volume]]:
    """The test sets of all runs, which have to be the same also where subjects were split."""
    config = next(iter(runs.values()))[0]
    dataset = configuration.make_dataset(config)
    sets = {label: settle_split(dataset, config.data, workdir).test
            for label, (_, workdir) in runs.items()}
    first, *others = sets
    names = {label: {volume.name for volumes in own.values() for volume in volumes}
             for label, own in sets.items()}
    for label in others:
        if names[label] != names[first]:
            only = sorted(names[label] ^ names[first])
            raise InputError(f"{first} and {label} are not tested on the same volumes "
                             f"({', '.join(only)} of one alone), expected the same for all: their "
                             "subjects were split in different ways; evaluate on data that no "
                             "run was trained on, by --config.data.path=FOLDER and "
                             "--config.data.split=False")
    return sets[first]


def _check(label: str, config: ConfigDict, first: str, other: ConfigDict) -> None:
    """Refuse a run that other slices would be scored of than of the first one."""
    for section in ("data", "acquisition"):
        a, b = other[section].to_dict(), config[section].to_dict()
        for key in sorted(a.keys() | b.keys()):
            if a.get(key) != b.get(key):
                raise InputError(
                    f"{section}.{key} is {a.get(key)!r} for {first} but {b.get(key)!r} for "
                    f"{label}, expected the same slices for all runs; set it for all of them with "
                    f"--config.{section}.{key}=VALUE")


def tabulate(results: dict[str, dict[str, dict[str, Any]]], folders: dict[str, Path]) -> list[Row]:
    """Rows of runs that were evaluated at one acceleration, test set by test set.

    Args:
        results: by run, what `evaluate` returned; the first run is what the others are compared
            with.
        folders: by run, where it wrote.
    """
    first = next(iter(results))
    rows = []
    for index, test_set in enumerate(results[first]):
        base: dict[str, np.ndarray] | None = None
        for run, sets in results.items():
            folder = folders[run] / ("" if index == 0 else test_set)
            slices = read_slices(folder / "slices.csv")
            against = None if base is None else {
                key: paired_difference(slices[key], base[key]) for key in slices}
            base = slices if base is None else base
            metrics = sets[test_set]
            rows.append(Row(run, metrics["acceleration"]["nominal"], test_set, metrics, slices,
                            against))
    return rows


def read_slices(path: Path) -> dict[str, np.ndarray]:
    """The scores in a `slices.csv`, `[slices]` by name."""
    with path.open(newline="") as file:
        table = list(csv.DictReader(file))
    return {key: np.array([float(row[key]) for row in table]) for key in QUALITY}


def markdown(rows: list[Row]) -> str:
    """The table, one for each acceleration and test set."""
    first = rows[0].run if rows else ""
    head = ["run", "PSNR (dB)", "SSIM", "NMSE", f"PSNR - {first}", f"SSIM - {first}", "NFE",
            "ms per slice", "parameters", "memory (MB)", "drops (dB)", "straightness",
            "data residual"]
    out = []
    for acceleration, test_set in dict.fromkeys((row.acceleration, row.test_set) for row in rows):
        own = [row for row in rows if (row.acceleration, row.test_set) == (acceleration, test_set)]
        metrics = own[0].metrics
        blank = metrics["zero_filled"]
        out += [f"**{test_set}**, R = {acceleration:g} (achieved "
                f"{metrics['acceleration']['achieved']:.2f}), {metrics['num_slices']} slices of "
                f"{metrics['num_volumes']} volume{'s' * (metrics['num_volumes'] > 1)}; "
                f"zero-filled: {blank['psnr']['mean']:.2f} dB, "
                f"SSIM {blank['ssim']['mean']:.3f}", "",
                f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
        out += [f"| {' | '.join(_cells(row))} |" for row in own] + [""]
    devices = sorted({row.metrics["device"] for row in rows})
    out.append("Mean ± std over volumes, if several. Differences are paired by slice, with 95 % "
               "bootstrap intervals over slices. NFE counts network evaluations per slice, of all "
               "samples; memory is that of the compiled reconstruction of one batch; drops are how "
               "often, and by how much in all, PSNR falls from one state to the next. Evaluated on "
               f"{'; '.join(devices)}.")
    return "\n".join(out)


def _cells(row: Row) -> list[str]:
    def spread(key: str, digits: int) -> str:
        return report.spread(row.metrics["method"][key], digits, row.metrics["num_volumes"])

    def difference(key: str, digits: int) -> str:
        if row.against is None:
            return ""
        mean, low, high = row.against[key]
        return f"{mean:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"

    metrics = row.metrics
    return [row.run, spread("psnr", 2), spread("ssim", 4), spread("nmse", 4),
            difference("psnr", 2), difference("ssim", 4), f"{metrics['nfe']:g}",
            f"{1000 * metrics['seconds_per_slice']:.1f}", f"{metrics['parameters']:,}",
            f"{metrics['peak_memory_bytes'] / 1e6:.0f}",
            f"{metrics['psnr_drops']:.1f} ({metrics['psnr_drop_db']:.2f})",
            f"{metrics['straightness']:.2f}", f"{metrics['measurement_residual']:.3f}"]


def plain(row: Row) -> dict[str, Any]:
    """A row as `comparison.csv` and `comparison.json` hold it."""
    metrics = row.metrics
    out = {"run": row.run, "method": metrics["method"]["name"], "test_set": row.test_set,
           "acceleration": row.acceleration,
           "achieved_acceleration": metrics["acceleration"]["achieved"]}
    for key in QUALITY:
        out |= {key: metrics["method"][key]["mean"], f"{key}_std": metrics["method"][key]["std"]}
    for key in ("psnr", "ssim"):
        out |= {f"{key}_difference_{end}": getattr(row.against[key], end) if row.against else None
                for end in Difference._fields}
    return out | {key: metrics[key] for key in (
        "nfe", "seconds_per_slice", "parameters", "peak_memory_bytes", "psnr_drops",
        "psnr_drop_db", "straightness", "measurement_residual", "num_slices", "num_volumes",
        "checkpoint_step", "config_hash", "device")}


class Panels(NamedTuple):
    """One slice as every run reconstructs it.

    Attributes:
        title: which slice.
        target: `[h, w]` float32.
        images: by label, `[h, w]` float32, zero filling first.
    """

    title: str
    target: np.ndarray
    images: dict[str, np.ndarray]


def panels(volume: Volume, config: ConfigDict, folders: dict[str, Path]) -> Panels:
    """The middle slice of a test volume.

    Args:
        volume: that the runs were tested on.
        config: of any of the runs.
        folders: by run, where `evaluate` wrote.
    """
    slices = measure_volume(volume, configuration.make_acquisition(config))
    index = len(slices) // 2
    batch = stack(slices[index:index + 1])
    target = np.asarray(batch.target[0])
    measured = batch.measurement
    blank = center_crop(combine(measured.kspace, measured.maps, config.method.combine),
                        target.shape)
    images = {"zero-filled": np.asarray(blank[0])}
    for label, folder in folders.items():
        path = folder / "reconstructions" / f"{volume.name.removesuffix('.h5')}.h5"
        with h5py.File(path) as file:
            images[label] = file["reconstruction"][index]
    return Panels(f"{volume.name}, slice {index + 1} of {len(slices)}", target, images)


def draw(rows: list[Row], shown: Panels) -> Figure:
    """All runs side by side above their errors in one window; below, PSNR against the cost.

    Args:
        rows: of one acceleration and test set.
        shown: images of that set.
    """
    target = shown.target
    images = {"target\n": target}
    for label, image in shown.images.items():
        scores = quality(target[None], image[None])
        images[f"{label}\n{scores['psnr']:.2f} dB, SSIM {scores['ssim']:.3f}"] = image
    width, height = report.size_of(images)
    figure = plt.figure(figsize=(max(9, width), height + 4.2), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=(height, 4.2))
    upper, lower = parts
    # One wild image should not hide the errors of the others: colours end at the start's largest.
    report.panels(upper, images, target,
                  float(np.abs(shown.images["zero-filled"] - target).max()))
    upper.suptitle(f"{shown.title}, R = {rows[0].acceleration:g}", fontsize=10)
    costs, times = lower.subplots(1, 2, sharey=True)
    _scatter(costs, rows, "nfe", 1.0)
    _scatter(times, rows, "seconds_per_slice", 1000.0)
    costs.set(xlabel="network evaluations per slice", ylabel="PSNR (dB)")
    times.set(xlabel=f"milliseconds per slice on {rows[0].metrics['device']}")
    costs.legend(fontsize=7)
    lower.suptitle(f"mean over {rows[0].test_set}", fontsize=10)
    return figure


def _scatter(axes: Axes, rows: list[Row], key: str, unit: float) -> None:
    colours = plt.get_cmap("tab10" if len(rows) <= 10 else "tab20")
    at = [unit * row.metrics[key] for row in rows]
    for index, (x, row) in enumerate(zip(at, rows, strict=True)):
        axes.plot(x, row.metrics["method"]["psnr"]["mean"], "o", label=row.run,
                  color=colours(index % colours.N))
    blank = rows[0].metrics["zero_filled"]["psnr"]["mean"]
    axes.axhline(blank, color="grey", linestyle=":", label="zero-filled")
    # Logarithmic, with a place for methods that never evaluate a network.
    axes.set_xscale("symlog", linthresh=1)
    axes.set_xlim(-0.1 if min(at) < 1 else min(at) / 2, 2 * max(1, *at))
    axes.xaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=1, subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.grid(alpha=0.3)


def _write(output: Path, rows: list[Row]) -> None:
    table = io.StringIO()
    lines = [plain(row) for row in rows]
    if lines:
        writer = csv.DictWriter(table, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    write_text(output / "comparison.csv", table.getvalue())
    write_text(output / "comparison.md", markdown(rows) + "\n")
    write_json(output / "comparison.json", lines)
