"""Theorem 1 of Qi et al. (arXiv 2512.03020), seen: an unrolled network is a flow's Euler method.

    python examples/theorem1.py --out=figures
    python examples/theorem1.py --out=figures --workdir runs/vanilla runs/varnet

Read it from top to bottom, as a notebook: each part below answers one question, draws one figure
and adds its numbers to `theorem1.json`. Parts (a), (b) and (e) need no training and take about a
minute on a CPU. Parts (c) and (d) read trained runs: E2E-VarNets, or the unrolled networks that
configs/singlecoil.py:vanilla describes, whose step sizes are free.
"""

import argparse
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from flatjax import flow, mri
from flatjax.config import make_method
from flatjax.data import DATASETS
from flatjax.errors import InputError
from flatjax.evaluation import figures
from flatjax.files import make_folder, write_json
from flatjax.flow.theorem import (
    Flow,
    Unrolled,
    as_flow,
    as_unrolled,
    euler,
    to_splitting,
    unit_interval,
    unroll,
)
from flatjax.mri.host.masks import make_mask
from flatjax.mri.linalg import conjugate_gradient
from flatjax.runs.workdir import load_config, load_params

SIGMA = 0.5
CHANNELS = 8
STIFF_SIGMA = 0.1  # of (e): explicit steps need K > 1 / (2 sigma^2) = 50
SOLVERS = {"euler": "o", "ab2": "s", "heun": "^", "bs3": "v", "rk4": "D"}


# What both parts act on: a brain slice seen by four coils, at R = 4, and a small smooth network
# with random weights. It is smooth so that a flow has all the derivatives that (b) counts.

def brain_slice(size: int) -> mri.Measurement:
    """One slice of the template, 4 coils, R = 4, on the scale of an image with maximum 1."""
    sample, = DATASETS["icbm"](matrix=size, coils=4).draw(np.random.default_rng(0), 1)
    mask = make_mask("random", (size, size), 4.0, 0.08, 0)[None, None]
    kspace = (mask * sample.kspace[None]).astype(np.complex128)
    measured = mri.Measurement(*map(jnp.asarray, (kspace, mask, sample.maps[None])))
    return measured._replace(kspace=measured.kspace / mri.intensity_scale(measured))


def random_weights(seed: int, copies: tuple[int, ...] = (), dtype: Any = float) -> dict[str, Array]:
    """Of `network`: three 3 x 3 convolutions and the way in for the time."""
    rng = np.random.default_rng(seed)
    shapes = {"first": (3, 3, 2, CHANNELS), "time": (2, CHANNELS),
              "second": (3, 3, CHANNELS, CHANNELS), "last": (3, 3, CHANNELS, 2)}
    return {name: jnp.asarray(rng.normal(0, np.prod(shape[:-1]) ** -0.5, (*copies, *shape)), dtype)
            for name, shape in shapes.items()}


def network(weights: dict[str, Array], image: Array, t: Array) -> Array:
    """A complex image `[batch, y, x]` and a time to another one."""
    def convolve(x: Array, kernel: Array) -> Array:
        return lax.conv_general_dilated(x, kernel, (1, 1), "SAME",
                                        dimension_numbers=("NHWC", "HWIO", "NHWC"))

    clock = jnp.stack([jnp.cos(np.pi * t), jnp.sin(np.pi * t)]) @ weights["time"]
    x = jnp.stack([jnp.real(image), jnp.imag(image)], axis=-1)
    x = jnp.tanh(convolve(3 * x, weights["first"]) + clock)
    x = convolve(jnp.tanh(convolve(x, weights["second"])), weights["last"])
    return x[..., 0] + 1j * x[..., 1]


def relative(a: Array, b: Array) -> Array:
    """Norm of the difference of states `[K + 1, ...]`, over that of the second."""
    axes = tuple(range(1, b.ndim))
    return jnp.sqrt(jnp.sum(jnp.abs(a - b) ** 2, axes) / jnp.sum(jnp.abs(b) ** 2, axes))


# (a) Is every cascade an Euler step, and every Euler step a cascade? Both directions, with
# parameters drawn at random: eta and lam free in the one, uneven timesteps and a sigma for each
# step in the other. The two programs share no line of the update.

def agreement(measured: mri.Measurement, dtype: Any, steps: int = 12) -> dict[str, Array]:
    """Relative difference of unrolled network and flow after each cascade, by direction."""
    rng = np.random.default_rng(1)
    kind = jnp.complex64 if dtype == jnp.float32 else jnp.complex128
    y, mask, maps, _ = measured
    y, mask, maps = y.astype(kind), mask.astype(dtype), maps.astype(kind)
    weights = random_weights(0, (steps,), dtype)

    def own_network(kspace: Array, own: dict[str, Array]) -> Array:
        return mri.expand(network(own, mri.reduce(kspace, maps), jnp.zeros((), dtype)), maps)

    eta, lam = jnp.asarray(rng.uniform(0.1, 1.5, (2, steps)), dtype)
    unrolled = Unrolled(eta, lam, own_network, weights)
    delta = -jnp.asarray(rng.dirichlet(np.ones(steps)), dtype)
    sampled = Flow(delta, jnp.asarray(rng.uniform(0.5, 2, steps), dtype), own_network, weights)
    return {"unrolled network read as a flow": relative(
                euler(as_flow(unrolled), y, mask), unroll(unrolled, y, mask)),
            "flow read as an unrolled network": relative(
                unroll(as_unrolled(sampled), y, mask), euler(sampled, y, mask))}


def draw_agreement(found: dict[str, dict[str, np.ndarray]]) -> "figures.Figure":
    """Differences after each cascade, those that are not 0, and the rounding of each precision."""
    figure = figures.blank((figures.COLUMN, 2.4))
    axes = figure.subplots()
    for precision, marker in (("float32", "o"), ("float64", "s")):
        for (label, values), fill in zip(found[precision].items(), ("full", "none"), strict=True):
            axes.semilogy(np.where(values > 0, values, np.nan), marker=marker, fillstyle=fill,
                          linestyle=":", color="C0" if marker == "o" else "C1",
                          label=f"{precision}: {label}")
        axes.axhline(np.finfo(precision).eps, color="0.6", linewidth=0.8)
        axes.text(12, np.finfo(precision).eps / 1.5, f"eps of {precision}", color="0.4", ha="right",
                  va="top")
    axes.set(xlabel="cascade", ylabel="relative difference", ylim=(1e-17, 1e-4),
             title="Cascades and Euler steps are the same map")
    axes.legend()
    return figure


# (b) One velocity network, sampled at K times: an unrolled network of K cascades with shared
# weights. As K doubles it tends to its flow with an error that halves, as Euler's method should;
# better solvers of the same flow use the same network evaluations better.

def convergence(measured: mri.Measurement, counts: list[int]) -> dict[str, list[float]]:
    """Relative error of the last state against the flow's own, by solver and number of steps."""
    weights = random_weights(2)
    y, mask, maps, _ = measured

    def velocity(kspace: Array, t: Array) -> Array:
        return mri.expand(network(weights, mri.reduce(kspace, maps), t), maps)

    def field(kspace: Array, t: Array, _: None) -> Array:
        return mask * (kspace - y) / SIGMA**2 + velocity(kspace, t)

    def unrolled_network(steps: int) -> Array:
        times = jnp.asarray(flow.time_grid(steps))
        sampled = Flow(jnp.diff(times), jnp.full(steps, SIGMA), velocity, times[:-1])
        return unroll(as_unrolled(sampled), y, mask)[-1]

    def solved(solver: str, steps: int) -> Array:
        return flow.solve(field, y, flow.time_grid(steps), solver=solver)[0]

    exact = jax.jit(solved, static_argnums=(0, 1))("rk4", 4 * max(counts))
    errors = {"euler": [unrolled_network(steps) for steps in counts]}
    errors |= {name: [solved(name, steps) for steps in counts]
               for name in SOLVERS if name != "euler"}
    return {name: [float(relative(end[None], exact[None])[0]) for end in ends]
            for name, ends in errors.items()}


def slope(counts: list[int], errors: list[float]) -> float:
    """Order of convergence: the slope in log-log from the second half of the counts."""
    half = len(counts) // 2
    return float(-np.polyfit(np.log(counts[half:]), np.log(errors[half:]), 1)[0])


def draw_convergence(counts: list[int], errors: dict[str, list[float]]) -> "figures.Figure":
    """Error against network evaluations, log-log, with each slope."""
    figure = figures.blank((figures.COLUMN, 2.4))
    axes = figure.subplots()
    for name, marker in SOLVERS.items():
        spent = [flow.SOLVERS[name].evaluations * steps for steps in counts]
        label = "K cascades" if name == "euler" else name
        axes.loglog(spent, errors[name], marker=marker,
                    label=f"{label}: order {slope(counts, errors[name]):.2f}")
    axes.set(xlabel="network evaluations", ylabel="relative error of the last state",
             title="A K-step network tends to its flow")
    axes.legend()
    return figure


# (c) What do learned step sizes say, read as timesteps? If one sigma is to hold for all cascades,
# eta is proportional to the timesteps: the profile eta / sum(eta) lies beside FLAT's schedule, and
# a negative entry is a step back in time. (d) With lam free too, the timesteps are -lam and every
# cascade has a sigma of its own, (lam / eta)^0.5; both are shown in the unit of time in which the
# timesteps add up to -1. FLAT's own sigma is a line beside them.

def learned_steps(workdir: str) -> dict[str, Any]:
    """Step sizes of a trained run and their reading.

    Raises:
        InputError: for a run whose step sizes were not learned freely.
    """
    config = load_config(workdir)
    params, step = load_params(workdir, config, make_method(config))
    if "eta" not in params:
        raise InputError(f"the run in {workdir} has no step sizes of its own, expected one of "
                         "configs/singlecoil.py:vanilla or configs/singlecoil.py:varnet")
    eta = np.asarray(params["eta"], np.float64)
    delta, sigma = unit_interval(eta)
    found = {"name": Path(workdir).name, "checkpoint_step": int(step),
             "method": config.method.name, "eta": eta,
             "profile": -np.asarray(delta), "sigma": float(sigma[0]),
             "schedule": -np.diff(flow.time_grid(len(eta))),
             "steps_back": int((np.asarray(delta) > 0).sum())}
    if "lam" in params:
        lam = np.asarray(params["lam"], np.float64)
        delta, sigma = unit_interval(eta, lam)
        found |= {"lam": lam, "delta_of_lam": np.asarray(delta),
                  "sigma_of_both": np.asarray(sigma)}
    return found


def draw_profiles(runs: list[dict[str, Any]]) -> "figures.Figure":
    """Profiles of (c), and the times that they amount to."""
    figure = figures.blank((figures.WIDE, 2.2))
    left, right = figure.subplots(1, 2)
    for run in runs:
        look = figures.look(run["method"])
        left.plot(range(1, len(run["eta"]) + 1), run["profile"], label=run["name"], **look)
        right.plot(1 - np.append(0, np.cumsum(run["profile"])), **look)
    for steps in sorted({len(run["eta"]) for run in runs}):
        times = flow.time_grid(steps)
        left.plot(range(1, steps + 1), -np.diff(times), ":", color="0.4",
                  label=f"FLAT's default, K = {steps}")
        right.plot(times, ":", color="0.4")
    if any(run["steps_back"] for run in runs):
        left.axhline(0, color="0.6", linewidth=0.5)
    left.set(xlabel="cascade", ylabel="eta / sum(eta)", title="Learned step sizes as timesteps")
    left.legend()
    right.set(xlabel="after cascade", ylabel="time t", title="Where each cascade stands")
    return figure


def draw_both(runs: list[dict[str, Any]]) -> "figures.Figure":
    """Timesteps and noise scales of (d); a cascade without a real sigma has a cross at 0."""
    figure = figures.blank((figures.WIDE, 2.2))
    left, right = figure.subplots(1, 2)
    for run in runs:
        look, sigma = figures.look(run["method"]), run["sigma_of_both"]
        cascades = range(1, len(sigma) + 1)
        left.plot(cascades, -run["delta_of_lam"], label=run["name"], **look)
        right.plot(cascades, sigma, **look)
        right.plot(cascades, np.where(np.isnan(sigma), 0, np.nan), "x", color=look["color"])
    for steps in sorted({len(run["eta"]) for run in runs}):
        ends = (1, steps)
        left.plot(ends, (1 / steps,) * 2, ":", color="0.4", label=f"FLAT's default, K = {steps}")
        right.plot(ends, (steps**-0.5,) * 2, ":", color="0.4")
    left.margins(y=1.5)  # what is little looks little
    left.set(xlabel="cascade", ylabel="-delta = lam / sum(lam)", title="Timesteps when lam is free")
    left.legend()
    right.set(xlabel="cascade", ylabel="sigma = (-delta / eta)^0.5",
              title="Noise scale of each step")
    return figure


# (e) And splitting networks, as MoDL? With the image as state, their cascade solves for the data
# term: it is a step of implicit-explicit Euler in the same flow. (e) is ours and not the paper's.
# With a sigma as small as a measurement's noise, explicit cascades diverge until there are many;
# implicit ones converge from the first.

def splitting(measured: mri.Measurement, counts: list[int]) -> dict[str, Any]:
    """Relative errors of explicit and splitting networks against their flow, by number of steps.

    Also the largest relative difference of a splitting network and the solver "imex", whose
    programs share no line of the update.
    """
    weights = random_weights(2)
    y, mask, maps, _ = measured
    start = mri.reduce(y, maps)
    data = flow.image_space(cg_iterations=100).data_consistency(measured)

    def velocity(image: Array, t: Array, _: None = None) -> Array:
        return network(weights, image, t)

    field = flow.SplitField(
        velocity, lambda image, _: data.gradient(image) / STIFF_SIGMA**2,
        lambda image, delta, _: data.proximal(image, -delta / STIFF_SIGMA**2))

    def splitting_network(steps: int) -> Array:
        times = jnp.asarray(flow.time_grid(steps))

        def cascade(image: Array, own: tuple[Array, Array, Array]) -> tuple[Array, None]:
            lam, delta, t = own
            better = image + delta * velocity(image, t)
            return conjugate_gradient(lambda x: mri.normal(x, mask, maps) + lam * x,
                                      start + lam * better, better, 100, 1e-10), None

        delta = jnp.diff(times)
        return lax.scan(cascade, start, (to_splitting(delta, STIFF_SIGMA), delta, times[:-1]))[0]

    def solved(solver: str, steps: int) -> Array:
        return flow.solve(field, start, flow.time_grid(steps), solver=solver)[0]

    run = jax.jit(solved, static_argnums=(0, 1))
    exact = run("rk4", 8 * max(counts))
    networks = [jax.jit(splitting_network, static_argnums=0)(steps) for steps in counts]
    ends = {"explicit (gradient-type)": [run("euler", steps) for steps in counts],
            "implicit (splitting-type)": networks}
    return {"sigma": STIFF_SIGMA, "steps": counts,
            "errors": {name: [float(relative(end[None], exact[None])[0]) for end in found]
                       for name, found in ends.items()},
            "largest_difference": max(
                float(relative(run("imex", steps)[None], end[None])[0])
                for steps, end in zip(counts, networks, strict=True))}


def draw_splitting(found: dict[str, Any]) -> "figures.Figure":
    """Error of both kinds of networks against K, and the bound of the explicit one."""
    figure = figures.blank((figures.COLUMN, 2.4))
    axes = figure.subplots()
    for (name, errors), marker in zip(found["errors"].items(), "os", strict=True):
        line, = axes.loglog(found["steps"], errors, marker=marker)
        axes.text(found["steps"][0], errors[0] / 10, name, color=line.get_color(), va="top")
    bound = 1 / (2 * found["sigma"] ** 2)
    axes.axvline(bound, color="0.6", linewidth=0.5)
    axes.text(bound * 1.05, 1e4, "explicit steps\nstable from here", color="0.4")
    axes.set(xlabel="cascades K", ylabel="relative error of the last state", ylim=(1e-4, 1e11),
             title=f"Two kinds of unrolled networks, one flow (sigma = {found['sigma']:g})")
    return figure


@figures.styled
def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Draw all that the arguments allow; returns what `theorem1.json` holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, help="folder for figures and theorem1.json")
    parser.add_argument("--workdir", nargs="*", default=[], help="trained runs, for (c) and (d)")
    parser.add_argument("--size", type=int, default=64, help="of the slice in (a), (b) and (e)")
    parser.add_argument("--most", type=int, default=128,
                        help="largest K of (b) and (e), from 4 doubling")
    arguments = parser.parse_args(argv)
    folder = make_folder(arguments.out)
    results: dict[str, Any] = {}

    def save(figure: "figures.Figure", name: str) -> None:
        figures.save(figure, folder / f"theorem1_{name}.png")

    with jax.enable_x64(True):
        measured = brain_slice(arguments.size)
        found = {precision: {label: np.asarray(values) for label, values in
                             agreement(measured, getattr(jnp, precision)).items()}
                 for precision in ("float32", "float64")}
        results["largest_difference"] = {
            precision: max(float(values.max()) for values in by_label.values())
            for precision, by_label in found.items()}
        save(draw_agreement(found), "agreement")
        counts = [4 * 2**i for i in range(int(np.log2(arguments.most / 4)) + 1)]
        errors = convergence(measured, counts)
        results["steps"], results["errors"] = counts, errors
        results["orders"] = {name: slope(counts, errors[name]) for name in errors}
        save(draw_convergence(counts, errors), "convergence")
        results["splitting"] = splitting(measured, counts)
        save(draw_splitting(results["splitting"]), "splitting")
    runs = [learned_steps(workdir) for workdir in arguments.workdir]
    if runs:
        save(draw_profiles(runs), "profiles")
    if both := [run for run in runs if "delta_of_lam" in run]:
        save(draw_both(both), "free_lambda")
    results["runs"] = [{key: value.tolist() if isinstance(value, np.ndarray) else value
                        for key, value in run.items()} for run in runs]
    write_json(folder / "theorem1.json", results)
    return results


if __name__ == "__main__":
    os.environ["MPLBACKEND"] = "agg"  # a notebook hands on its own, which need not be there
    try:
        out = main()
    except InputError as error:
        raise SystemExit(f"theorem1: error: {error}") from None
    print("largest relative difference of cascades and Euler steps:",
          ", ".join(f"{value:.1e} in {name}" for name, value in out["largest_difference"].items()))
    print("orders:", ", ".join(f"{name} {value:.2f}" for name, value in out["orders"].items()))
    print("splitting networks and implicit-explicit Euler: largest relative difference",
          f"{out['splitting']['largest_difference']:.1e}; order",
          f"{slope(out['steps'], out['splitting']['errors']['implicit (splitting-type)']):.2f}")
    for run in out["runs"]:
        print(f"{run['name']}: eta / sum(eta) =", " ".join(f"{x:.3f}" for x in run["profile"]),
              f"({run['steps_back']} steps back in time)")
