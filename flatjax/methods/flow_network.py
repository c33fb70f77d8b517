"""Networks that are trained as they run: rolled out along a flow, supervised at its end.

FLAT and the vanilla unrolled network are such networks. They differ in how far each cascade
follows the data term and its network, and in nothing else.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array
from jax.typing import ArrayLike

from flatjax import losses
from flatjax.errors import InputError, check_choice
from flatjax.flow import Schedule, SplitField, StateSpace, path, solve
from flatjax.flow.scan import Record, identity
from flatjax.flow.solve import ADAPTIVE
from flatjax.methods.base import Method, Params
from flatjax.methods.common import (
    WEIGHTS,
    Rolled,
    apply_network,
    end_terms,
    init_network,
    normalize,
    project,
    reconstructor,
    with_sensitivities,
)
from flatjax.mri import Batch, Measurement, global_phase
from flatjax.nets import SensitivityNet

ENDPOINT = "endpoint"
_DIAGONAL = np.complex64((1 - 1j) / np.sqrt(2))

# `(params, noise)` to the factors of the data term and of the network in the field, `[steps]`
# each; that of the data term is `[steps, batch]` where it follows the noise.
Factors = Callable[[Params, Array | None], tuple[ArrayLike, ArrayLike]]
StepArgs = tuple[Array, Array, Params]  # of one step: both factors and its own network's weights


def flow_network(network: nn.Module, schedule: Schedule, space: StateSpace, factors: Factors,
                 learned: Callable[[], Params], *, weights: str, projection: bool, combine: str,
                 sensitivities: SensitivityNet | None, remat: bool, loss: losses.Loss,
                 solver: str = "euler", tolerance: float = 1e-3,
                 parameterization: str = "velocity",
                 told: Callable[[Measurement, Array | None], Array] | None = None) -> Method:
    """A `Method` that integrates `factor_d A^H (A x - y) + factor_n v(x, t)` along a schedule.

    Args:
        factors: see `Factors`; of adaptive steps, numbers.
        learned: what is learned beside the network, at its start.
        told: `Likelihood.noise`, which the network and the factors are told; None if they are not.
        network, schedule, space, weights, projection, combine, sensitivities, remat, loss, solver,
            tolerance, parameterization: see `flat.make`.

    Raises:
        InputError: for a value out of range.
    """
    check_choice("parameterization", parameterization, ("velocity", ENDPOINT))
    check_choice("weights", weights, WEIGHTS)
    shared = weights == "shared"
    if getattr(network, "time_channels", None) == 0 and (shared or told is not None):
        raise InputError("time_channels is 0, expected above 0 where steps share their weights or "
                         "the network is told the noise: both reach it by that embedding")
    if loss.domain == "kspace" and not space.multicoil:
        raise InputError("loss.domain is 'kspace', expected 'image' where the state is one")
    times, steps = schedule.times, schedule.steps

    def init(rng: Array, batch: Batch) -> Params:
        extra: dict[str, Any] = {} if told is None else {"noise": jnp.ones(1)}
        return {"net": init_network(network, rng, batch, None if shared else steps, **extra),
                **learned()}

    def field_of(params: Params, measured: Measurement, noise: Array | None) -> SplitField:
        data, maps = space.data_consistency(measured), measured.maps
        extra = {} if noise is None else {"noise": noise}
        # A scan's global phase is arbitrary. For the network, an image is turned to one that gives
        # its real and imaginary parts equal shares: norms would blow up an empty part.
        turn = 1 if space.multicoil else _DIAGONAL * global_phase(measured)

        def velocity(own: Params, state: Array, t: Array) -> Array:
            image = space.image(state, maps)
            predicted = turn * apply_network(network, own, image / turn,
                                             t=jnp.broadcast_to(t, state.shape[:1]), **extra)
            if parameterization == ENDPOINT:
                return (state - space.lift(image + predicted, maps)) / t
            return space.lift(predicted, maps)

        def smooth(state: Array, t: Array, args: StepArgs) -> Array:
            _, factor, own = args
            return factor * velocity(params["net"] if shared else own, state, t)

        def stiff(state: Array, args: StepArgs) -> Array:
            return args[0] * data.gradient(state)

        def resolvent(state: Array, delta: Array, args: StepArgs) -> Array:
            return data.proximal(state, -delta * args[0])

        return SplitField(smooth, stiff, resolvent)

    def rollout(params: Params, measured: Measurement, noise: Array | None,
                trajectory: bool | int, record: Record) -> Rolled:
        args = (*factors(params, noise), None if shared else params["net"])
        return solve(field_of(params, measured, noise),
                     space.state(measured.kspace, measured.maps), times, solver=solver, args=args,
                     tolerance=tolerance, trajectory=trajectory, record=record, remat=remat)

    def to_kspace(state: Array, measured: Measurement) -> Array:
        kspace = space.kspace(state, measured.maps)
        return project(kspace, measured) if projection else kspace

    def roll(params: Params, rng: Array, measured: Measurement, trajectory: bool | int,
             record: Record) -> Rolled:
        noise = None if told is None else told(measured, None)
        final, states, nfe = rollout(params, measured, noise, trajectory,
                                     lambda state: record(space.kspace(state, measured.maps)))
        return to_kspace(final, measured), states, nfe

    def aligned(states: Array, batch: Batch) -> Array:
        maps = batch.measurement.maps
        start, end = (space.state(kspace, maps)
                      for kspace in (batch.measurement.kspace, batch.kspace))
        ideal = path.interpolate(start, end, times[1:].reshape(-1, *[1] * end.ndim))
        if loss.domain == "image":
            states, ideal = space.image(states, maps), space.image(ideal, maps)
        return losses.alignment(prediction=states, target=ideal, delta=schedule.delta,
                                average=loss.average)

    def total(params: Params, rng: Array, batch: Batch) -> tuple[Array, dict[str, Array]]:
        if solver == ADAPTIVE:
            raise InputError("solver is 'adaptive', expected a fixed one for training: a loop of "
                             "unknown length has no gradient in reverse mode")
        batch = normalize(batch)
        measured = batch.measurement
        noise = None if told is None else told(measured, rng)
        final, saved, _ = rollout(params, measured, noise, loss.weights.get("velocity", 0) > 0,
                                  identity)
        states: Any = saved  # not None where its term is computed
        terms = end_terms(to_kspace(final, measured), batch, combine) | {
            "velocity": lambda: aligned(states[1:], batch)}
        return losses.total_loss(loss.weights, terms)

    method = Method(init, total, reconstructor(roll, combine=combine, steps=steps,
                                               times=jnp.asarray(times)))
    return with_sensitivities(method, sensitivities)
