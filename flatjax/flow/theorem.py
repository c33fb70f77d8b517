"""Theorem 1, executable: a first-order unrolled network as a flow, and back.

Qi et al. (arXiv 2512.03020). The cascades of an unrolled network and the Euler steps of a flow

    k_{j+1} = k_j - eta_j M (k_j - y) + lam_j G_j(k_j)
    k_{j+1} = k_j + delta_j (M (k_j - y) / sigma_j^2 + v_j(k_j)),    t_{j+1} = t_j + delta_j

are, step by step, the same maps with

    eta_j = -delta_j / sigma_j^2,    lam_j = -delta_j,    G_j = -v_j

For a network whose term has no factor of its own, as E2E-VarNet's, see `unit_interval`.

The theorem goes on, which is ours and not the paper's: a cascade of a splitting network (MoDL,
half-quadratic splitting) is an implicit-explicit Euler step of the same flow in image space,

    x_{j+1} = argmin_x ||A x - y||^2 + lam_j ||x - D_j(x_j)||^2
    D_j(x) = x + delta_j v_j(x),    lam_j = sigma_j^2 / |delta_j|

so gradient-type unrolling takes the data term explicitly and splitting-type unrolling implicitly.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from flatjax.flow.scan import scan_steps
from flatjax.flow.solve import solve

# `(k, args_j) -> k`, where `args_j` is step j's slice of the arguments.
StepFunction = Callable[[Array, Any], Array]


def to_unrolled(delta: ArrayLike, sigma: ArrayLike) -> tuple[Array, Array]:
    """`(eta, lam)` of the unrolled network whose cascades are the Euler steps `(delta, sigma)`."""
    delta = jnp.asarray(delta)
    return -delta / jnp.asarray(sigma) ** 2, -delta


def to_flow(eta: ArrayLike, lam: ArrayLike) -> tuple[Array, Array]:
    """`(delta, sigma)` of the flow whose Euler steps are the cascades `(eta, lam)`.

    `sigma` has one entry per step; it is one number only where `lam / eta` is constant. It is
    NaN where `lam / eta` is negative: such a cascade is not a gradient step of a likelihood.
    """
    eta, lam = jnp.asarray(eta), jnp.asarray(lam)
    return -lam, jnp.sqrt(lam / eta)


def to_splitting(delta: ArrayLike, sigma: ArrayLike) -> Array:
    """`lam` of the splitting network whose cascades are the implicit-explicit Euler steps."""
    return jnp.asarray(sigma) ** 2 / jnp.abs(jnp.asarray(delta))


def from_splitting(lam: ArrayLike, delta: ArrayLike) -> Array:
    """`sigma` of the flow whose implicit-explicit Euler steps are cascades with these `lam`.

    A splitting network leaves the timesteps open: for any `delta`, its velocity is
    `(D_j(x) - x) / delta_j`.
    """
    return jnp.sqrt(jnp.asarray(lam) * jnp.abs(jnp.asarray(delta)))


class Unrolled(NamedTuple):
    """A first-order unrolled network of K cascades."""

    eta: Array  # data-consistency step sizes `[K]`
    lam: Array  # factors of the learned term `[K]`
    refine: StepFunction  # G, `(k, args_j) -> G_j(k)`
    args: Any  # pytree with a leading axis of K: weights or times of each cascade


class Flow(NamedTuple):
    """A flow sampled at K times."""

    delta: Array  # timesteps `[K]`, negative where time falls
    sigma: Array  # measurement-noise scales `[K]`
    velocity: StepFunction  # v, `(k, args_j) -> v_j(k)`
    args: Any  # pytree with a leading axis of K

    @property
    def times(self) -> Array:
        """`[K + 1]` from 1; the last is 0 if the timesteps are consistent."""
        passed = jnp.cumsum(jnp.asarray(self.delta))
        return 1 + jnp.concatenate([jnp.zeros_like(passed[:1]), passed])


def as_flow(network: Unrolled) -> Flow:
    """The flow whose Euler steps are the cascades of `network`; for sigma see `to_flow`."""
    delta, sigma = to_flow(network.eta, network.lam)
    return Flow(delta, sigma, lambda k, args: -network.refine(k, args), network.args)


def as_unrolled(flow: Flow) -> Unrolled:
    """The unrolled network whose cascades are the Euler steps of `flow`."""
    eta, lam = to_unrolled(flow.delta, flow.sigma)
    return Unrolled(eta, lam, lambda k, args: -flow.velocity(k, args), flow.args)


def unroll(network: Unrolled, measured: Array, mask: Array) -> Array:
    """The states of an unrolled network started at the measurement, `[K + 1, batch, coil, ky, kx]`.

    From the measured y `[batch, coil, ky, kx]` complex and the mask M `[batch, 1, ky or 1, kx]`.
    """
    def cascade(kspace: Array, own: tuple[Array, Array, Any]) -> Array:
        eta, lam, args = own
        return kspace - eta * mask * (kspace - measured) + lam * network.refine(kspace, args)

    return scan_steps(cascade, measured, (network.eta, network.lam, network.args),
                      trajectory=True)[1]


def euler(flow: Flow, measured: Array, mask: Array) -> Array:
    """The states of a flow by Euler's method; arguments and result as in `unroll`."""
    def field(kspace: Array, t: Array, args: tuple[Array, Any]) -> Array:
        sigma, own = args
        return mask * (kspace - measured) / sigma**2 + flow.velocity(kspace, own)

    return solve(field, measured, flow.times, solver="euler", args=(flow.sigma, flow.args),
                 trajectory=True)[1]


def unit_interval(eta: ArrayLike, lam: ArrayLike | None = None) -> tuple[Array, Array]:
    """`(delta, sigma)` of an unrolled network on a clock that runs from 1 to 0.

    The unit of time is a convention: timesteps c times as long with `v / c` and `sigma c^0.5` are
    the same cascades. Here it makes the timesteps add up to -1, so that they compare with a
    schedule: `delta = -lam / sum(lam)`, `sigma = (lam / (eta sum(lam)))^0.5`, `v = -sum(lam) G`.

    `lam` is None for a network without factors of the learned term, as E2E-VarNet is. One sigma for
    all cascades then makes up for them, with `lam = eta` and `G_j / eta_j` in place of the term:
    only the profile `eta / sum(eta)` and its signs are fixed.

    All are `[K]`. A positive timestep is a cascade that runs backwards in time; a sigma of NaN, one
    whose data term pushes away from the measurement.
    """
    eta = jnp.asarray(eta)
    lam = eta if lam is None else jnp.asarray(lam)
    total = jnp.sum(lam)
    return -lam / total, jnp.sqrt(lam / (eta * total))
