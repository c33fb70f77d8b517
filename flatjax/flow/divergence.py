"""How a flow changes log-densities: the integral of its divergence.

Along a solution of `dk/dt = f(k, t)` the density of what flows with it obeys

    d log p_t(k_t) / dt = -div f(k_t, t)

(Chen et al., "Neural Ordinary Differential Equations", NeurIPS 2018, arXiv 1806.07366). The
divergence is the trace of f's Jacobian, complex numbers being pairs of real ones, and is estimated
without bias by probes e with `E e e^T = I` as `(e J) . e` (Hutchinson, Comm. Stat. Simul. 19(2),
1990; Grathwohl et al., "FFJORD", ICLR 2019, arXiv 1810.01367).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from flatjax.flow.solvers import VectorField


def rademacher(rng: Array, shape: tuple[int, ...]) -> Array:
    """A complex64 probe of signs, of real and imaginary parts each."""
    real, imaginary = jax.random.rademacher(rng, (2, *shape), jnp.float32)
    return real + 1j * imaginary


def divergence(field: Callable[[Array], Array], state: Array,
               probes: Array) -> tuple[Array, Array]:
    """The field `[batch, ...]` and an estimate of its divergence `[batch]`, element by element.

    The state is `[batch, ...]`, real or complex, and the field has no exchange between elements.
    The estimate is averaged over probes `[probes, batch, ...]`, such as `rademacher` draws; it is
    exact for an orthonormal basis, times the root of its size.
    """
    # Reverse mode, since the networks' convolutions have no forward derivative.
    slope, pull = jax.vjp(field, state)
    axes = tuple(range(1, state.ndim))
    along = jax.vmap(lambda e: jnp.sum(jnp.real(pull(jnp.conj(e))[0] * e), axis=axes))(probes)
    return slope, along.mean(axis=0)


def transport(field: VectorField, state: Array, times: ArrayLike, probes: Array,
              integrate: Callable[..., tuple[Any, ...]]) -> tuple[Array, Array]:
    """Follow a flow together with the integral of its divergence.

    The first three arguments are those of `integrate`, such as a partial `flow.solve`; the probes,
    `[probes, batch, ...]`, are held along the way, see `divergence`. The result is `(end, change)`,
    `[batch, ...]` and `[batch]` real: with the densities p at the first and the last time,
    `log p(state) = log p(end) + change`.
    """
    def both(pair: tuple[Array, Array], t: Array, args: Any) -> tuple[Array, Array]:
        return divergence(lambda k: field(k, t, args), pair[0], probes)

    nothing = jnp.zeros(state.shape[:1], jnp.finfo(state.dtype).dtype)
    (end, change), *_ = integrate(both, (state, nothing), times)
    return end, change
