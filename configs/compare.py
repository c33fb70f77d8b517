r"""FLAT against the other methods at singlecoil's scale, for many hours on two CPU cores.

The same command goes on where it stopped:

    python train.py --config=configs/compare.py:NAME --workdir=runs/compare \
        --results=docs/comparison/NAME --dry-run

NAME is methods_r4, methods_r8 or evaluations; docs/comparison.md says what they are. With one
workdir for all three, what they have in common is trained once. Without `--dry-run` it runs.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from flatjax.errors import InputError
from flatjax.experiments.config_file import load_config_file
from flatjax.experiments.grid import Grid, Run, changed

SEEDS = (0, 1)  # of FLAT and VarNet, which the claims are about
# Their networks see no measurement: trained once for all accelerations.
# Evaluated with as many samples as the others, which changes nothing about the training.
UNCONDITIONAL = {"score_sde": {"method.steps": 25, "method.samples": 4},
                 "dds": {"method.samples": 4}}
GENERATIVE = ("flow_matching", "mc_ddpm", *UNCONDITIONAL)
R8 = {"acquisition.acceleration": 8.0, "acquisition.center_fraction": 0.04}
STEP_NFE = {"flow_matching": 1, "mc_ddpm": 1, "score_sde": 2, "dds": 1}


def trained(method: str, budget: int, changes: Mapping[str, Any], *,
            evaluations: Mapping[str, Mapping[str, Any]] | None = None,
            seeds: tuple[int, ...] = (0,), baseline: str = "") -> Run:
    """A run of a method's config of singlecoil with so many times its updates."""
    config = load_config_file(f"singlecoil:{method}")
    config = changed(config, {"train.steps": budget * config.train.steps,
                              "train.validate_every": budget * config.train.validate_every,
                              **changes})
    return Run(config, evaluations or {"": {}}, seeds, baseline)


def methods(acquisition: Mapping[str, Any], suffix: str, unrolled: Sequence[int],
            generative: Sequence[int]) -> dict[str, Run]:
    """Every method, trained for one acceleration at each of the budgets of its kind.

    Each is compared with FLAT at its budget, those of 10x with FLAT at 3x.
    """
    runs = {}
    for budget in unrolled:
        for name, method, changes, seeds in (
                ("flat", "flat", {}, SEEDS), ("varnet", "varnet", {}, SEEDS),
                ("varnet with flat loss", "varnet", {"method.loss.name": "flat"}, SEEDS),
                ("vanilla", "vanilla", {}, (0,)), ("modl", "modl", {}, (0,)),
                ("unet", "unet", {}, (0,))):
            runs[named(name, budget, suffix)] = trained(method, budget, {**changes, **acquisition},
                                                        seeds=seeds,
                                                        baseline=named("flat", budget, suffix))
    for method in GENERATIVE:
        for budget in generative:
            baseline = named("flat", min(budget, 3), suffix)
            if method in UNCONDITIONAL:
                runs[named(method, budget, "")] = trained(
                    method, budget, {}, evaluations={"": {**UNCONDITIONAL[method], **acquisition}},
                    baseline=baseline)
            else:
                runs[named(method, budget, suffix)] = trained(method, budget, acquisition,
                                                              baseline=baseline)
    sparse = "compressed_sensing"
    return runs | {named(sparse, 1, suffix): trained(sparse, 1, acquisition)}


def named(name: str, budget: int, suffix: str) -> str:
    """Of a run: the same in every grid that it belongs to."""
    return f"{name}{f' {budget}x' if budget > 1 else ''}{suffix}"


def methods_r4() -> Grid:
    """All methods at R = 4, VarNet also with fastMRI's own network and its random start."""
    original = {named("varnet of fastMRI", budget, ""): trained(
        "varnet", budget, {"method.network.name": "fastmri"}, baseline=named("flat", budget, ""))
        for budget in (1, 3)}
    runs = methods({}, "", (1, 3), (1, 3, 10))
    return Grid("All methods, R = 4", runs | original, baseline="flat")


def methods_r8() -> Grid:
    """All methods at R = 8, at the largest budgets alone, and FLAT also of twelve steps."""
    longer = {named("flat K 12", 3, " R 8"): trained(
        "flat", 3, {"method.schedule.steps": 12, **R8})}
    runs = longer | methods(R8, " R 8", (3,), (10,))
    return Grid("All methods, R = 8", {
        name: run._replace(title=re.sub(r"( \d+x)?( R 8)?$", "", name), baseline="flat")
        for name, run in runs.items()}, baseline="flat")


def steps_of(method: str) -> str:
    """The key of a sampler's steps."""
    return "method.schedule.steps" if method == "flow_matching" else "method.steps"


def evaluations() -> Grid:
    """Network evaluations: FLAT of 4 to 12 steps, each sampler by 12 to 100 of them in all.

    These are spent on one sample, or split evenly between two or four. FLAT has three times the
    updates of singlecoil, the samplers ten times.
    """
    runs = {named(f"flat K {steps}", 3, ""): trained("flat", 3, {"method.schedule.steps": steps})
            for steps in (4, 8, 12)}
    runs[named("flat", 3, "")] = trained("flat", 3, {}, seeds=SEEDS)  # of six
    for method in GENERATIVE:
        tried = {}
        for samples in (1, 2, 4):
            for count in (12, 24, 36, 50, 100):
                steps, rest = divmod(count, samples * STEP_NFE[method])
                if not rest:
                    tried[f"{count} evaluations, {samples} sample{'s' * (samples > 1)}"] = {
                        steps_of(method): steps, "method.samples": samples}
        runs[named(method, 10, "")] = trained(method, 10, {}, evaluations=tried)
    return Grid("Network evaluations, R = 4", runs, baseline=named("flat K 12", 3, ""))


GRIDS = {grid.__name__: grid for grid in (methods_r4, methods_r8, evaluations)}


def get_config(name: str = "") -> Grid:
    if name not in GRIDS:
        raise InputError(f"the comparison is {name!r}, expected configs/compare.py:NAME with one "
                         f"of {', '.join(GRIDS)}")
    return GRIDS[name]()
