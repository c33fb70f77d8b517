"""Networks that are trained as they run: rolled out along a flow, supervised at its end.

FLAT and the vanilla unrolled network are such networks. They differ in how far each cascade
follows the data term and its network, and in nothing else.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import ArrayLike

from flatjax import losses
from flatjax.errors import InputError, check_choice
from flatjax.flow import Likelihood, Schedule, SplitField, StateSpace, path, solve
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
)
from flatjax.mri import COMBINES, Batch, Measurement

VELOCITY, ENDPOINT = PARAMETERIZATIONS = ("velocity", "endpoint")

# `(params, noise)` to the factors of the data term and of the network in the field, `[steps]`
# each; that of the data term is `[steps, batch]` where it follows the noise.
Factors = Callable[[Params, Array | None], tuple[ArrayLike, ArrayLike]]


def flow_network(network: nn.Module, schedule: Schedule, space: StateSpace,
                 likelihood: Likelihood, factors: Factors, learned: Callable[[], Params], *,
                 solver: str, tolerance: float, parameterization: str, weights: str,
                 projection: bool, combine: str, remat: bool, loss: losses.Loss) -> Method:
    """A `Method` that integrates `factor_d A^H (A x - y) + factor_n v(x, t)` along a schedule.

    Args:
        network, schedule, space, likelihood: parts, see `flat.make`.
        factors: see `Factors`; of adaptive steps, numbers.
        learned: what is learned beside the network, at its start.
        solver, tolerance, parameterization, weights, projection, combine, remat, loss: see
            `flat.make`.

    Raises:
        InputError: for a value out of range.
    """
    check_choice("parameterization", parameterization, PARAMETERIZATIONS)
    check_choice("weights", weights, WEIGHTS)
    check_choice("combine", combine, COMBINES)
    shared = weights == "shared"
    if shared and getattr(network, "time_channels", None) == 0:
        raise InputError("time_channels is 0, expected above 0 with shared weights: only the "
                         "time tells one step from another")
    if loss.domain == "kspace" and not space.multicoil:
        raise InputError("loss.domain is 'kspace', expected 'image' where the state is one")
    times, steps, told = schedule.times, schedule.steps, likelihood.noise

    def init(rng: Array, batch: Batch) -> Params:
        extra: dict[str, Any] = {} if told is None else {"noise": jnp.ones(1)}
        return {"net": init_network(network, rng, batch, None if shared else steps, **extra),
                **learned()}

    def velocity(own: Params, state: Array, t: Array, maps: Array, noise: Array | None) -> Array:
        image = space.image(state, maps)
        predicted = apply_network(network, own, image, t=jnp.broadcast_to(t, state.shape[:1]),
                                  **({} if noise is None else {"noise": noise}))
        if parameterization == VELOCITY:
            return space.lift(predicted, maps)
        return (state - space.lift(image + predicted, maps)) / t

    def field_of(params: Params, measured: Measurement, noise: Array | None) -> SplitField:
        data = space.data_consistency(measured)

        def smooth(state: Array, t: Array, step_args: tuple[Array, Array, Params]) -> Array:
            _, factor, own = step_args
            net_params = params["net"] if shared else own
            return factor * velocity(net_params, state, t, measured.maps, noise)

        def stiff(state: Array, step_args: tuple[Array, Array, Params]) -> Array:
            return step_args[0] * data.gradient(state)

        def resolvent(state: Array, delta: Array, step_args: tuple[Array, Array, Params]) -> Array:
            return data.proximal(state, -delta * step_args[0])

        return SplitField(smooth, stiff, resolvent)

    def rollout(params: Params, measured: Measurement, trajectory: bool | int,
                record: Record = identity) -> Rolled:
        noise = None if told is None else told(measured)
        args = (*factors(params, noise), None if shared else params["net"])
        return solve(field_of(params, measured, noise), space.start(measured), times,
                     solver=solver, args=args, tolerance=tolerance, trajectory=trajectory,
                     record=record, remat=remat)

    def to_kspace(state: Array, measured: Measurement) -> Array:
        kspace = space.kspace(state, measured.maps)
        return project(kspace, measured) if projection else kspace

    def result(params: Params, measured: Measurement, trajectory: bool | int) -> Rolled:
        final, states, nfe = rollout(params, measured, trajectory,
                                     lambda state: space.kspace(state, measured.maps))
        if states is None:
            return to_kspace(final, measured), None, nfe
        final = project(states[-1], measured) if projection else states[-1]
        return final, states.at[-1].set(final) if projection else states, nfe

    def aligned(states: Array, batch: Batch) -> Array:
        maps = batch.measurement.maps
        ends = space.start(batch.measurement), space.end(batch.kspace, maps)
        ideal = path.interpolate(*ends, times[1:].reshape(-1, *[1] * ends[0].ndim))
        if loss.domain == "image":
            states, ideal = space.image(states, maps), space.image(ideal, maps)
        return losses.alignment(states, ideal, schedule.delta, average=loss.average)

    def total(params: Params, rng: Array, batch: Batch) -> tuple[Array, dict[str, Array]]:
        if solver == ADAPTIVE:
            raise InputError("solver is 'adaptive', expected a fixed one for training: a loop of "
                             "unknown length has no gradient in reverse mode")
        batch = normalize(batch)
        measured = batch.measurement
        if told is not None:
            measured = measured._replace(noise=likelihood.perturb(rng, told(measured)))
        final, kept, _ = rollout(params, measured, loss.weights.get("velocity", 0) > 0)
        states: Any = kept  # not None where its term is computed
        terms = end_terms(to_kspace(final, measured), batch, combine) | {
            "velocity": lambda: aligned(states[1:], batch)}
        return losses.total_loss(loss.weights, terms)

    return Method(init, total, reconstructor(result, combine=combine, steps=steps,
                                             times=jnp.asarray(times)))
