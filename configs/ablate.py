"""Ablations of FLAT at the scale of configs/singlecoil.py: some minutes a run on two CPU cores.

    python train.py --config=configs/ablate.py:NAME --workdir=runs/ablate/NAME --dry-run
    python train.py --config=configs/ablate.py:NAME --workdir=runs/ablate/NAME

docs/ablations.md defines them. `--results=docs/ablations/NAME` takes the scores that are published
there for done, and `--config.train.steps=...` or any other key changes all runs of a grid.
"""

from collections.abc import Mapping
from itertools import product
from types import MappingProxyType
from typing import Any

from flatjax import config
from flatjax.errors import InputError
from flatjax.experiments.config_file import load_config_file
from flatjax.experiments.grid import Grid, Run, changed

END_TERMS = ("ssim", "l1", "kspace")
IMPLICIT = MappingProxyType({"space.name": "image", "solver": "imex"})


def run(changes: Mapping[str, Any] = MappingProxyType({}), *, method: str = "flat",
        evaluations: Mapping[str, Mapping[str, Any]] | None = None) -> Run:
    """A method's config of singlecoil with options of the method replaced."""
    demo = load_config_file(f"singlecoil:{method}")
    return Run(changed(demo, {f"method.{key}": changes[key] for key in changes}),
               evaluations or {"": {}})


def weights(**terms: float) -> dict[str, float]:
    """Weights of the loss."""
    return {f"loss.{term}": terms[term] for term in terms}


def parts(changes: Mapping[str, Any] = MappingProxyType({})) -> dict[str, Run]:
    """The paper's three changes to an unrolled network, each on and off: eight runs."""
    changed_parts = ("timesteps", "parameters", "alignment")
    learned = {("timesteps",): "eta", ("parameters",): "timesteps", (): "both"}
    runs = {}
    for present in product((True, False), repeat=3):
        names = tuple(name for name, there in zip(changed_parts, present, strict=True) if there)
        constraints = tuple(name for name in names if name != "alignment")
        own = dict(changes) | weights(velocity=0.1 if "alignment" in names else 0.0)
        runs["+".join(names) or "vanilla"] = (
            run(own | {"learned": learned[constraints]}, method="vanilla")
            if constraints in learned else run(own))
    return runs


def flat_parts() -> Grid:
    """The three parts of FLAT as the paper has it."""
    return Grid("The three parts of FLAT", parts(), baseline="vanilla", seeds=(0, 1))


def loss_terms() -> Grid:
    """Each term of the loss alone, and each left out."""
    terms = (*END_TERMS, "velocity")
    runs = {"all terms": run()}
    runs |= {f"without {term}": run(weights(**{term: 0.0})) for term in terms}
    runs |= {f"{term} alone": run(weights(**{other: 0.0 for other in terms if other != term}))
             for term in terms}
    runs |= {"vanilla, all end terms": run(method="vanilla"),
             "vanilla, ssim alone": run(weights(l1=0.0, kspace=0.0), method="vanilla")}
    return Grid("Terms of the loss", runs, baseline="all terms")


def schedule() -> Grid:
    """The schedule's alpha, and timesteps that are learned."""
    runs = {f"alpha {alpha:g}": run({"schedule.alpha": alpha})
            for alpha in (-0.25, 0.0, 0.5, 1.0)}
    runs["learned"] = run(weights(velocity=0.1) | {"learned": "timesteps"}, method="vanilla")
    return Grid("Timesteps", runs, baseline="alpha 0")


def steps() -> Grid:
    """The number of cascades K."""
    return Grid("Number of cascades", {f"K {count}": run({"schedule.steps": count})
                                       for count in (2, 4, 6, 8, 12, 16, 24)}, baseline="K 6")


def solver() -> Grid:
    """Shared weights trained under one solver at six evaluations (rk4: eight), tried under others.

    sigma is the same throughout, since it belongs to the ODE and not to its solver, and such that
    three steps of a second-order solver are stable.
    """
    sigma = 0.45
    tried = {"": {}} | {
        f"by {name} {count}": {"method.solver": name, "method.schedule.steps": count}
        for name, counts in {"euler": (4, 12, 24), "ab2": (6, 12, 24), "midpoint": (3, 6, 12),
                             "heun": (3, 6, 12), "ralston": (3, 6, 12), "rk4": (2, 6)}.items()
        for count in counts}
    tried["by adaptive"] = {"method.solver": "adaptive"}
    trained = {"euler": 6, "ab2": 6, "midpoint": 3, "heun": 3, "ralston": 3, "rk4": 2}
    runs = {f"{name} {count}": run(
        {"weights": "shared", "likelihood.sigma": sigma, "solver": name, "schedule.steps": count},
        evaluations=tried if name == "euler" else None) for name, count in trained.items()}
    return Grid("ODE solvers", runs, baseline="euler 6")


def parameterization() -> Grid:
    """What the network predicts."""
    return Grid("Parameterization", {
        "velocity": run(), "endpoint": run({"parameterization": "endpoint"})},
        baseline="velocity")


def sigma() -> Grid:
    """The likelihood's noise scale; below K^-0.5 / sqrt(2) Euler is not stable.

    The measurement noise is about .005 of the image's maximum, 1 on the scale that sigma is on.
    """
    base = 6**-0.5
    return Grid("Noise scale of the likelihood", {
        f"sigma {factor:g} K^-0.5": run({"likelihood.sigma": factor * base})
        for factor in (0.75, 1.0, 1.5, 2.45)}, baseline="sigma 1 K^-0.5")


def sharing() -> Grid:
    """One network for all steps, as wide or with as many parameters."""
    return Grid("Sharing of weights", {
        "per cascade": run(), "shared": run({"weights": "shared"}),
        "shared, 20 channels": run({"weights": "shared", "network.channels": 20})},
        baseline="per cascade")


def acceleration() -> Grid:
    """Models trained at one acceleration each, and each tried at the others."""
    factors = {2: 0.16, 4: 0.08, 8: 0.04, 12: 0.04}
    tried = {f"at R {factor}": {"acquisition.acceleration": float(factor),
                                "acquisition.center_fraction": center}
             for factor, center in factors.items()}
    runs = {}
    for factor in factors:
        for method, title in (("flat", ""), ("vanilla", "vanilla ")):
            trained = changed(load_config_file(f"singlecoil:{method}"), tried[f"at R {factor}"])
            runs[f"{title}R {factor}"] = Run(trained, tried)
    return Grid("Acceleration", runs, baseline="R 4, at R 4")


def alignment() -> Grid:
    """How the velocity's alignment is averaged, where it is measured, and its weight."""
    runs = {f"{average}, {domain}": run({"loss.average": average, "loss.domain": domain})
            for average in ("mean", "integral") for domain in ("image", "kspace")}
    runs |= {f"weight {weight:g}": run(weights(velocity=weight)) for weight in (0.03, 0.3, 1.0)}
    return Grid("Velocity alignment", runs, baseline="mean, image")


def initialization() -> Grid:
    """The last layer of every network: zero, or random."""
    return Grid("Initialization", {
        "zero": run(), "random": run({"network.zero_init": False}),
        "vanilla, zero": run(method="vanilla"),
        "vanilla, random": run({"network.zero_init": False}, method="vanilla")}, baseline="zero")


def teacher() -> Grid:
    """States rolled out from the measurement, or teacher-forced from a random start."""
    demo = load_config_file("singlecoil:flow_matching")
    tried = {"": {}} | {f"in {count} steps": {"method.schedule.steps": count}
                      for count in (1, 6, 24)}
    return Grid("Rolled out or teacher-forced", {
        "rolled out, shared": run({"weights": "shared"}), "teacher-forced": Run(demo, tried)},
        baseline="rolled out, shared")


def eight_coils(runs: Mapping[str, Run], **changes: Any) -> dict[str, Run]:
    """The runs on eight simulated coils: Poisson-disc masks at R = 8, noise .01 of the maximum."""
    acquired = {"data.coils": 8, "acquisition.mask": "poisson", "acquisition.acceleration": 8.0,
                "acquisition.center_fraction": 0.03, "acquisition.noise": 0.01} | changes
    return {name: one._replace(config=changed(one.config, acquired))
            for name, one in runs.items()}


def data_term() -> Grid:
    """The data term of eight coils, explicit and implicit, in both state spaces; and its relatives.

    MoDL is the implicit method of the same flow with learned lambdas and shared weights, VarNet the
    explicit one.
    """
    return Grid("Data term of eight coils", eight_coils({
        "VarNet": run(method="varnet"),
        "FLAT, k-space, explicit": run(),
        "FLAT, k-space, implicit": run({"solver": "imex"}),
        "FLAT, image, explicit": run({"space.name": "image"}),
        "MoDL": run(method="modl"),
        "FLAT, image, implicit": run(IMPLICIT),
        "FLAT, image, implicit, not aligned": run(IMPLICIT | weights(velocity=0.0))}),
        baseline="FLAT, k-space, explicit")


def imex_parts() -> Grid:
    """The three parts of FLAT with implicit steps on images of eight coils."""
    return Grid("The three parts of FLAT with implicit steps", eight_coils(parts(IMPLICIT)),
                baseline="vanilla", seeds=(0, 1))


def likelihood() -> Grid:
    """How sigma is chosen with implicit steps; each tried at three levels of noise.

    Every training slice draws its noise, log-uniformly.
    """
    tried = {f"at noise {noise:g}": {"acquisition.noise": noise} for noise in (0.001, 0.005, 0.03)}
    kinds = {f"sigma {sigma:g}": {"likelihood.sigma": sigma} for sigma in (0.03, 0.1, 0.3)} | {
        "learned": {"likelihood.name": "learned"}, "of the noise": {"likelihood.name": "noise"}}
    return Grid("Sigma with implicit steps", eight_coils(
        {name: run(IMPLICIT | kind, evaluations=tried) for name, kind in kinds.items()},
        **{"acquisition.noise": (0.001, 0.03)}), baseline="sigma 0.1, at noise 0.005")


def image_space() -> Grid:
    """Implicit steps on images: iterations of conjugate gradients, steps K, shared weights."""
    tried = {f"by {count}": {"method.space.cg_iterations": count} for count in (3, 6, 12)}
    runs = {f"CG {count}": run(IMPLICIT | {"space.cg_iterations": count}, evaluations=tried)
            for count in (3, 6, 12)}
    runs |= {f"K {count}": run(IMPLICIT | {"schedule.steps": count}) for count in (4, 8, 12)}
    runs["shared weights"] = run(IMPLICIT | {"weights": "shared"})
    return Grid("Implicit steps on images", eight_coils(runs), baseline="CG 6, by 6")


def heads() -> Grid:
    """FLAT, explicit and implicit, MoDL and VarNet trained for any scan, as multicoil but smaller.

    benchmarks/real_scans.py tries them on scans that none of them has seen.
    """
    multicoil = load_config_file("multicoil")
    runs = {"FLAT, implicit": run(IMPLICIT | {"likelihood.name": "noise"}),
            "FLAT, explicit": run(), "MoDL": run(method="modl"), "VarNet": run(method="varnet")}
    for one in runs.values():
        one.config.data = config.data("heads", matrix=96, coils=8)
        one.config.acquisition = multicoil.acquisition
        one.config.acquisition.noise = (0.001, 0.03)
    return Grid("Trained on heads for any scan", runs, baseline="FLAT, explicit")


def self_supervision() -> Grid:
    """Full k-space or none in training, with 1 or 4 splits of each slice, at R = 4 and 8.

    All take as many reconstructions per update. What they gain is over CG-SENSE.
    """
    kinds = {"full": {}, "self, 1 split": {"train.supervision": "self"},
             "self, 4 splits": {"train.supervision": "self", "train.splits": 4,
                                "train.batch_size": 1}}
    runs = {}
    for factor in (4, 8):
        own = eight_coils(
            {name: run(IMPLICIT) for name in kinds} | {"CG-SENSE": run(method="cg_sense")},
            **{"acquisition.acceleration": float(factor), "acquisition.center_fraction": 0.03})
        for name, one in own.items():
            one.config.data = config.data("heads", matrix=96, coils=8, fewest_coils=4)
            runs[f"{name}, R {factor}"] = one._replace(
                config=changed(one.config, kinds.get(name, {})), baseline=f"full, R {factor}",
                seeds=(0, 1) if name in kinds else (0,))
    return Grid("With and without full k-space", runs, baseline="full, R 4")


GRIDS = {grid.__name__: grid for grid in (
    flat_parts, loss_terms, schedule, steps, solver, parameterization, sigma, sharing,
    acceleration, alignment, initialization, teacher, data_term, imex_parts, likelihood,
    image_space, heads, self_supervision)}


def get_config(name: str = "") -> Grid:
    if name not in GRIDS:
        raise InputError(f"the ablation is {name!r}, expected configs/ablate.py:NAME with one of "
                         f"{', '.join(GRIDS)}")
    return GRIDS[name]()
