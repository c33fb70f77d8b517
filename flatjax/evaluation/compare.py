"""Several runs on the same slices: one table, one figure.

`flatjax compare --workdir=A --workdir=B ... --output=DIR` scores every run as `evaluate` does, into
a folder each, and puts them side by side. Differences from the first run are paired by slice.
"""

from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from flatjax import config as configuration
from flatjax.data.base import Volume
from flatjax.data.splits import restore_split
from flatjax.errors import InputError
from flatjax.evaluation import figures, tables, trajectory
from flatjax.evaluation.comparison import draw, markdown, middle_slice, plain, tabulate
from flatjax.evaluation.evaluate import evaluate
from flatjax.evaluation.tables import Row
from flatjax.files import make_folder
from flatjax.runs.workdir import at_test_time, load_config, load_params


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
    """A copy of the config with another R; the center keeps its share of what is measured.

    Where R or the center was a range, the center stays as it was.

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
    image forming under all runs, and what `evaluate` writes into a folder per run; with several
    accelerations the pictures and a folder per run for each of them.

    Args:
        runs: by label, `(config, workdir)`, the first one being what the others are compared
            with. All have the same data and acquisition.
        output: folder.
        accelerations: nominal R to evaluate all runs at, in place of that of their configs; the
            share of the center in what is measured stays.

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
        tables.write(output, "comparison", markdown(rows), [plain(row) for row in rows])
        if results[first]:
            main = next(iter(results[first]))
            own = [row for row in found if row.test_set == main]
            shown = middle_slice(tested[main][0], configs[first], folders)
            figures.save(draw(own, *shown), output / f"comparison{suffix}.png")
            moving = {label: folder for label, folder in folders.items()
                      if results[label][main]["steps"][-1] and configs[label].evaluation.figures}
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


def _tested(runs: dict[str, tuple[ConfigDict, str | Path]]) -> dict[str, list[Volume]]:
    """The test sets of all runs, which have to be the same also where subjects were split."""
    config = next(iter(runs.values()))[0]
    dataset = configuration.make_dataset(config)
    sets = {label: restore_split(dataset, config.data, workdir).test
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
