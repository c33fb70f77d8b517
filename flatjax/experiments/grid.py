"""Grids of runs: an ablation or a comparison by one command, that goes on where it stopped.

A config file whose `get_config` returns a `Grid` trains what is missing, evaluates it, and writes
one table and one figure. What a run scored is one small JSON file per evaluation: these can be kept
where the checkpoints are not, and grids whose folders of results lie side by side share them. The
same command may run several times at once: each takes runs that no other is training.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from flatjax.config import with_names
from flatjax.errors import InputError
from flatjax.options import flattened


class Run(NamedTuple):
    """A training and its evaluations: one line of a grid, or several."""

    config: ConfigDict  # of the training; the grid replaces its seed
    evaluations: Mapping[str, Mapping[str, Any]] = {"": {}}  # by name, what each changes of it
    seeds: tuple[int, ...] = ()  # to train with; empty for the grid's
    baseline: str = ""  # as `Grid.baseline`; empty for the grid's
    title: str = ""  # in tables and figures; empty for the run's name


class Grid(NamedTuple):
    """Runs that differ in one thing each."""

    title: str  # of its table and figure
    runs: dict[str, Run]  # by name
    baseline: str  # `label` of what runs without a baseline of their own are compared with
    seeds: tuple[int, ...] = (0,)  # of runs without seeds of their own


class Trial(NamedTuple):
    """One training of a grid: a run with a seed, and the configs that it is evaluated with."""

    run: str
    seed: int
    config: ConfigDict
    evaluations: dict[str, ConfigDict]

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"{self.run}_seed{self.seed}"


def label(run: str, evaluation: str) -> str:
    """The name of an evaluation of a run in tables."""
    return f"{run}, {evaluation}" if evaluation else run


def changed(config: ConfigDict, changes: Mapping[str, Any]) -> ConfigDict:
    """A copy of the config with values replaced, given by dotted names as "method.steps".

    Raises:
        InputError: for a name that the config does not have.
    """
    config = ConfigDict(config.to_dict())
    with_names(config, {key.removesuffix(".name"): value for key, value in changes.items()
                        if key.endswith(".name")})
    values = flattened(config)
    ranges = {key: value for key, value in changes.items()  # in place of a number, or the reverse
              if isinstance(value, tuple) or isinstance(values.get(key), tuple)}
    try:
        config.lock()  # it takes no new keys
        config.update_from_flattened_dict({key: changes[key] for key in changes.keys() - ranges})
        with config.ignore_type():
            config.update_from_flattened_dict(ranges)
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"{dict(changes)} cannot be set: {error}; expected keys of the config and "
                         "values of their types") from error
    return config.unlock()


def trials(grid: Grid) -> list[Trial]:
    """All trainings of a grid, one seed after the other."""
    made = []
    for name, run in grid.runs.items():
        for seed in run.seeds or grid.seeds:
            config = changed(run.config, {"seed": seed})
            made.append(Trial(name, seed, config, {
                key: changed(config, changes) for key, changes in run.evaluations.items()}))
    return sorted(made, key=lambda trial: trial.seed)
