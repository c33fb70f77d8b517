"""Theorem 1, executable: a first-order unrolled network as a flow, and back.

Qi et al. (arXiv 2512.03020). The cascades of an unrolled network and the Euler steps of a flow

    k_{j+1} = k_j - eta_j M (k_j - y) + lam_j G_j(k_j)
    k_{j+1} = k_j + delta_j (M (k_j - y) / sigma_j^2 + v_j(k_j)),    t_{j+1} = t_j + delta_j

are the same maps with the parameters of `schedule.to_flow` and `v_j = -G_j`. For a network whose
term has no factor of its own, as E2E-VarNet's, see `unit_interval`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from flatjax.flow.schedule import to_flow, to_unrolled
from flatjax.flow.solvers import VectorField

# `(k, args_j) -> k`, where `args_j` is step j's slice of the arguments.
StepFunction = Callable[[Array, Any], Array]


class Unrolled(NamedTuple):
    """A first-order unrolled network of K cascades.

    Attributes:
        eta: data-consistency step sizes `[K]`.
        lam: factors of the learned term `[K]`.
        refine: G, `(k, args_j) -> G_j(k)`.
        args: pytree with a leading axis of K: weights or times of each cascade.
    """

    eta: Array
    lam: Array
    refine: StepFunction
    args: Any


class Flow(NamedTuple):
    """A flow sampled at K times.

    Attributes:
        delta: timesteps `[K]`, negative where time falls.
        sigma: measurement-noise scales `[K]`.
        velocity: v, `(k, args_j) -> v_j(k)`.
        args: pytree with a leading axis of K.
    """

    delta: Array
    sigma: Array
    velocity: StepFunction
    args: Any

    @property
    def times(self) -> Array:
        """`[K + 1]` from 1; the last is 0 if the timesteps are consistent."""
        passed = jnp.cumsum(jnp.asarray(self.delta))
        return 1 + jnp.concatenate([jnp.zeros_like(passed[:1]), passed])

    def field(self, measured: Array, mask: Array) -> VectorField:
        """The field for `flow.solve`, with `step_args`: `M (k - y) / sigma_j^2 + v_j(k)`."""
        def field(kspace: Array, t: Array, args: tuple[Array, Any]) -> Array:
            sigma, own = args
            return mask * (kspace - measured) / sigma**2 + self.velocity(kspace, own)

        return field

    @property
    def step_args(self) -> tuple[Array, Any]:
        """What each step hands to the field: its sigma and its own arguments."""
        return self.sigma, self.args


def as_flow(network: Unrolled) -> Flow:
    """The flow whose Euler steps are the cascades of `network`.

    A cascade whose eta and lam differ in sign has no sigma: it is NaN there.
    """
    delta, sigma = to_flow(network.eta, network.lam)
    return Flow(delta, sigma, lambda k, args: -network.refine(k, args), network.args)


def as_unrolled(flow: Flow) -> Unrolled:
    """The unrolled network whose cascades are the Euler steps of `flow`."""
    eta, lam = to_unrolled(flow.delta, flow.sigma)
    return Unrolled(eta, lam, lambda k, args: -flow.velocity(k, args), flow.args)


def unroll(network: Unrolled, measured: Array, mask: Array) -> Array:
    """The states of an unrolled network, started at the measurement.

    Args:
        network: of K cascades.
        measured: y `[batch, coil, ky, kx]` complex.
        mask: M `[batch, 1, ky or 1, kx]`.

    Returns:
        `[K + 1, batch, coil, ky, kx]`, like y.
    """
    def cascade(kspace: Array, own: tuple[Array, Array, Any]) -> tuple[Array, Array]:
        eta, lam, args = own
        kspace = kspace - eta * mask * (kspace - measured) + lam * network.refine(kspace, args)
        return kspace, kspace

    _, states = lax.scan(cascade, measured, (network.eta, network.lam, network.args))
    return jnp.concatenate([measured[None], states])


def unit_interval(eta: ArrayLike, lam: ArrayLike | None = None) -> tuple[Array, Array]:
    """`(delta, sigma)` of an unrolled network on a clock that runs from 1 to 0.

    The unit of time is a convention: timesteps c times as long with `v / c` and `sigma c^0.5` are
    the same cascades. Here it makes the timesteps add up to -1, so that they compare with a
    schedule: `delta = -lam / sum(lam)`, `sigma = (lam / (eta sum(lam)))^0.5`, `v = -sum(lam) G`.

    Args:
        eta: data-consistency step sizes `[K]`.
        lam: factors of the learned term `[K]`; None for a network without, as E2E-VarNet is. One
            sigma for all cascades then makes up for them, with `lam = eta` and `G_j / eta_j` in
            place of the term: only the profile `eta / sum(eta)` and its signs are fixed.

    Returns:
        `[K]` each. A positive timestep is a cascade that runs backwards in time; a sigma of NaN,
        one whose data term pushes away from the measurement.
    """
    eta = jnp.asarray(eta)
    lam = eta if lam is None else jnp.asarray(lam)
    total = jnp.sum(lam)
    return -lam / total, jnp.sqrt(lam / (eta * total))
