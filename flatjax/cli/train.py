"""The program `train.py`, also installed as `flatjax-train`."""

from typing import Any

from ml_collections import ConfigDict

from flatjax.cli.program import CACHE_USAGE, run, take
from flatjax.experiments.config_file import load_config_file, override

TRAIN_USAGE = """\
Train a reconstruction model; the same command resumes it.

  train.py --config=configs/demo.py --workdir=DIR [--config.key=value ...]

  --config   a config file, or the name of one that flatjax ships, such as demo;
             FILE:NAME hands NAME to its get_config
  --workdir  folder of the run: config, metrics, checkpoints
  --distributed  join the other processes that run this command (docs/hosts.md)

A config that is a grid of runs, such as ablate:flat_parts, is trained, evaluated and tabled:

  --results  folder of scores, table and figure; DIR/results by default
  --dry-run  print the runs, their parameters and the time they should take
""" + CACHE_USAGE


def train_main() -> None:
    """The program `train.py`, also installed as `flatjax-train`."""
    def main(argv: list[str]) -> None:
        path, argv = take(argv, "config")
        workdir, argv = take(argv, "workdir")
        options = _join(argv)  # first of all that asks for devices, as a config's imports do
        config = load_config_file(path)
        if isinstance(config, ConfigDict):
            from flatjax.training.train import train
            train(override(config, options), workdir)
        else:
            _grid(config, workdir, argv)  # which is trained by one process

    run("train", TRAIN_USAGE, main)


def _join(argv: list[str]) -> list[str]:
    """Join other processes if an option says so, and give the arguments without it."""
    from flatjax.runs.hosts import join
    named = [a for a in argv if a.partition("=")[0] == "--distributed"]
    for argument in named[-1:]:
        join(argument.partition("=")[2])
    return [argument for argument in argv if argument not in named]


def _grid(grid: Any, workdir: str, argv: list[str]) -> None:
    from flatjax.experiments.run import describe, run_grid
    results, argv = take(argv, "results", default="")
    dry = "--dry-run" in argv
    argv = [argument for argument in argv if argument != "--dry-run"]
    grid = grid._replace(runs={name: run._replace(config=override(run.config, argv))
                               for name, run in grid.runs.items()})
    if dry:
        print(describe(grid, workdir, results or None))
    else:
        run_grid(grid, workdir, results or None)
