"""FLAT: an unrolled network trained as the Euler discretization of a conditional flow.

Qi et al., "Unrolled Networks are Conditional Probability Flows in MRI Reconstruction"
(arXiv 2512.03020). One cascade is one step of

    dx/dt = A^H (A x - y) / sigma^2 + v(x, t)

from t = 1 (measured, zero-filled) to t = 0 (fully sampled). The paper's state is k-space, with the
mask for A, and its steps are explicit. With several coils the state is better an image, and the
data term is better taken implicitly: `image_space` and the solver "imex", our extension.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array
from jax.typing import ArrayLike

from flatjax import flow, losses
from flatjax.errors import InputError, check_choice
from flatjax.flow import LIKELIHOODS, SOLVERS, SPACES, Likelihood, SplitField, StateSpace
from flatjax.flow.scan import Record, identity
from flatjax.flow.schedule import check_stable
from flatjax.flow.solve import ADAPTIVE, check_solver, solve
from flatjax.methods import common
from flatjax.methods.base import Method, MethodSpec, Options, Params
from flatjax.mri import Batch, Measurement, global_phase
from flatjax.nets import SENSITIVITIES, SensitivityNet, unet

IMEX, ENDPOINT = "imex", "endpoint"
_IMEX_SIGMA = 0.1
_DIAGONAL = np.complex64((1 - 1j) / np.sqrt(2))
_LIKELIHOOD, _LOSS = Likelihood(), losses.flat()

StepArgs = tuple[Array, Array, Params]  # of one step: both factors and its own network's weights


def default_sigma(solver: str, steps: int) -> float:
    """The sigma of a likelihood that leaves it open."""
    return _IMEX_SIGMA if solver == IMEX else steps**-0.5


def make(network: nn.Module, schedule: np.ndarray, space: StateSpace, *, solver: str = "euler",
         tolerance: float = 1e-3, likelihood: Likelihood = _LIKELIHOOD,
         parameterization: str = "velocity", weights: str = "per_cascade",
         projection: bool = False, combine: str = "sense",
         sensitivities: SensitivityNet | None = None, remat: bool = False,
         loss: losses.Loss = _LOSS) -> Method:
    """FLAT as a `Method`.

    Args:
        network: from an image and the time to an image, as `nets.unet`.
        schedule: the times of the cascades, from `flow.schedule`.
        space: what the state is, multi-coil k-space, or one image for any number of coils:
            `flow.kspace_space` or `flow.image_space`.
        solver: name in `flow.SOLVERS`, of which "imex" takes the data term implicitly and is
            stable for any sigma; or "adaptive", for reconstruction alone and with shared
            weights, which takes as many steps as the tolerance asks for and interpolates its
            trajectory at the times.
        tolerance: of adaptive steps, relative and absolute, on the scale of an image with
            maximum 1.
        likelihood: its sigma, from `flow.fixed_sigma`, `learned_sigma` or `noise_sigma`; the last
            two belong to the solver "imex".
        parameterization: what the network predicts: the "velocity" `v = E net`, or the
            "endpoint" `E (E^H k + net)` of the path, with `v = (k - endpoint) / t`.
        weights: "per_cascade" networks, or one "shared" by all and told the time.
        projection: put the measured samples back into the result.
        combine: how coils are combined for the image, "sense" or "rss".
        sensitivities: a network that estimates the coil maps, from `nets.learned_maps`; None for
            those given with the measurement.
        remat: recompute each cascade in the backward pass: memory hardly grows with K.
        loss: from `losses.flat`.

    Raises:
        InputError: for a value out of range, or timesteps beyond the solver's stability.
    """
    check_solver(solver, tolerance=tolerance)
    check_choice("parameterization", parameterization, ("velocity", ENDPOINT))
    check_choice("weights", weights, common.WEIGHTS)
    adaptive, shared, told = solver == ADAPTIVE, weights == "shared", likelihood.noise
    delta, steps = np.diff(schedule), len(schedule) - 1
    sigma = default_sigma(solver, steps) if likelihood.sigma is None else likelihood.sigma
    check_stable(delta, sigma, np.inf if adaptive else SOLVERS[solver].stability)
    _check(solver, likelihood, parameterization, shared)
    if getattr(network, "time_channels", None) == 0 and (shared or told is not None):
        raise InputError("time_channels is 0, expected above 0 where steps share their weights or "
                         "the network is told the noise: both reach it by that embedding")
    if loss.domain == "kspace" and not space.multicoil:
        raise InputError("loss.domain is 'kspace', expected 'image' where the state is one")

    def init(rng: Array, batch: Batch) -> Params:
        extra: dict[str, Any] = {} if told is None else {"noise": jnp.ones(1)}
        return (common.init_network(network, rng, batch, None if shared else steps, **extra)
                | likelihood.init(sigma, steps))

    def factors(params: Params, noise: Array | None) -> tuple[ArrayLike, ArrayLike]:
        if likelihood.factors is not None:
            return likelihood.factors(params, noise)
        if adaptive:
            return 1 / sigma**2, 1.0
        eta = -delta / sigma**2  # as in Theorem 1, for the sake of its rounding
        return eta / -delta, np.ones_like(delta)

    def rollout(params: Params, rng: Array | None, measured: Measurement, trajectory: bool | int,
                record: Record) -> common.Rolled:
        noise = None if told is None else told(measured, rng)
        args = (*factors(params, noise), None if shared else params["net"])
        field = _field(network, params["net"] if shared else None, space, parameterization,
                       measured, noise)
        return solve(field, space.state(measured.kspace, measured.maps), schedule, solver=solver,
                     args=args, tolerance=tolerance, trajectory=trajectory, record=record,
                     remat=remat)

    def to_kspace(state: Array, measured: Measurement) -> Array:
        kspace = space.kspace(state, measured.maps)
        return common.project(kspace, measured) if projection else kspace

    def rollout_in_kspace(params: Params, rng: Array, measured: Measurement,
                          trajectory: bool | int, record: Record) -> common.Rolled:
        final, states, nfe = rollout(params, None, measured, trajectory, lambda state: record(
            space.kspace(state, measured.maps)))
        return to_kspace(final, measured), states, nfe

    def aligned(states: Array, batch: Batch) -> Array:
        maps = batch.measurement.maps
        start, end = (space.state(kspace, maps)
                      for kspace in (batch.measurement.kspace, batch.kspace))
        ideal = flow.interpolate(start, end, schedule[1:].reshape(-1, *[1] * end.ndim))
        if loss.domain == "image":
            states, ideal = space.image(states, maps), space.image(ideal, maps)
        return losses.alignment(prediction=states, target=ideal, delta=delta, average=loss.average)

    def total(params: Params, rng: Array, batch: Batch) -> tuple[Array, dict[str, Array]]:
        if adaptive:
            raise InputError("solver is 'adaptive', expected a fixed one for training: a loop of "
                             "unknown length has no gradient in reverse mode")
        batch = common.normalize(batch)
        final, saved, _ = rollout(params, rng, batch.measurement,
                                  loss.weights.get("velocity", 0) > 0, identity)
        states: Any = saved  # not None where its term is computed
        terms = common.end_terms(to_kspace(final, batch.measurement), batch, combine) | {
            "velocity": lambda: aligned(states[1:], batch)}
        return losses.total_loss(loss.weights, terms)

    reconstruct = common.reconstructor(rollout_in_kspace, combine=combine, steps=steps,
                                       times=jnp.asarray(schedule))
    return common.with_sensitivities(Method(init, total, reconstruct), sensitivities)


def _check(solver: str, likelihood: Likelihood, parameterization: str, shared: bool) -> None:
    """Refuse choices that a solver does not go with."""
    if not likelihood.explicit and solver != IMEX:
        raise InputError(f"sigma is learned with the solver {solver!r}, expected the solver "
                         "'imex': explicit steps are unstable where sigma becomes small")
    if solver == ADAPTIVE and not shared:
        raise InputError("solver is 'adaptive', expected a fixed one unless weights are shared: it "
                         "takes steps of its own, and what was learned one per step does not "
                         "belong to them")
    if parameterization == ENDPOINT and (solver == ADAPTIVE or SOLVERS[solver].nodes[-1] == 1):
        raise InputError(f"solver {solver!r} evaluates the velocity at t = 0, where the endpoint "
                         "parameterization divides by t; use euler, midpoint, ralston, ab2, bs3, "
                         "imex or the velocity form")


def _field(network: nn.Module, shared: Params | None, space: StateSpace, parameterization: str,
           measured: Measurement, noise: Array | None) -> SplitField:
    """`factor_d A^H (A x - y) + factor_n v(x, t)`, by the weights given or those of each step."""
    data, maps = space.data_consistency(measured), measured.maps
    extra = {} if noise is None else {"noise": noise}
    # A scan's global phase is arbitrary. For the network, an image is turned to one that gives its
    # real and imaginary parts equal shares: norms would blow up an empty part.
    turn = 1 if space.multicoil else _DIAGONAL * global_phase(measured)

    def smooth(state: Array, t: Array, args: StepArgs) -> Array:
        _, factor, own = args
        image = space.image(state, maps)
        predicted = turn * common.apply_network(
            network, own if shared is None else shared, image / turn,
            t=jnp.broadcast_to(t, state.shape[:1]), **extra)
        if parameterization == ENDPOINT:
            return factor * ((state - space.lift(image + predicted, maps)) / t)
        return factor * space.lift(predicted, maps)

    return SplitField(
        smooth, stiff=lambda state, args: args[0] * data.gradient(state),
        resolvent=lambda state, delta, args: data.proximal(state, -delta * args[0]))


def _open(options: Options) -> dict[str, float]:
    """The default sigma, a part of the flow and not of its discretization."""
    return {"likelihood.sigma": default_sigma(options["solver"], options["schedule"]["steps"])}


SPEC = MethodSpec(
    make,
    parts={"network": unet, "schedule": flow.schedule, "space": SPACES, "likelihood": LIKELIHOODS,
           "sensitivities": SENSITIVITIES, "loss": losses.flat},
    test_time=("tolerance", "projection", "remat", "network.dtype", "space.cg_iterations",
               "likelihood.sigma", "likelihood.jitter", "likelihood.factor", "loss"),
    shared_time=("schedule", "solver"), left_open=_open)
