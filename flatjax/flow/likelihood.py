"""How far a flow trusts the measurement: the scale sigma of the noise in its likelihood.

The data term is divided by sigma^2. sigma is fixed, learned for each step, or learned as a power
of the measurement's own noise, of which the network is then told, too.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from flatjax.errors import check_above, check_at_least
from flatjax.mri import Measurement, noise_level

Params = Any

_REFERENCE_NOISE = 0.01  # at which the sigma of `noise_sigma` is the one that it starts from
_NOISE_RANGE = (1e-4, 0.3)


class Likelihood(NamedTuple):
    """How sigma is chosen.

    Attributes:
        sigma: its value, or the one it is learned from; None for the default of the solver.
        init: `(sigma, steps) -> params`, a dict of what is learned.
        factors: `(params, noise)` to those of data term and network, `1 / sigma^2` and 1, `[steps]`
            each; the first `[steps, batch]` if it follows the noise. None where sigma is fixed.
        noise: `(measurement, rng) -> [batch]`, the noise that the network is told, in training
            with an error drawn by the key `rng`, otherwise None; None if it is not told.
        explicit: whether explicit steps can follow it.
    """

    sigma: float | None = None
    init: Callable[[float, int], Params] = lambda sigma, steps: {}
    factors: Callable[[Params, Array | None], tuple[ArrayLike, ArrayLike]] | None = None
    noise: Callable[[Measurement, Array | None], Array] | None = None
    explicit: bool = True


def fixed_sigma(*, sigma: float | None = None) -> Likelihood:
    """The same sigma at all steps, on the scale of an image with maximum 1.

    By default it is `K^-0.5`, at which the mean data-consistency step eta is 1, and 0.1 with the
    solver "imex".
    """
    return Likelihood(sigma)


def _first(sigma: float, steps: int) -> Params:
    return {"log_sigma": jnp.full(steps, np.log(sigma), jnp.float32)}


def _factors(log_sigma: Array) -> tuple[Array, np.ndarray]:
    return jnp.exp(-2 * log_sigma), np.ones(len(log_sigma), np.float32)


def learned_sigma(*, sigma: float | None = None) -> Likelihood:
    """A sigma for each step, learned from `sigma`, by default 0.1.

    It needs the solver "imex", which is stable for any sigma.
    """
    return Likelihood(sigma, _first, lambda params, _: _factors(params["log_sigma"]),
                      explicit=False)


def noise_sigma(*, sigma: float | None = None, jitter: float = 2.0,
                factor: float = 1.0) -> Likelihood:
    """`sigma_j (noise / 0.01)^p_j` of the measurement's noise, both learned, from p = 1/2.

    The network is told the noise, too. A noise that is not known is `mri.noise_level`. For the
    solver "imex", as `learned_sigma`.

    Args:
        sigma: to start from, by default 0.1.
        jitter: in training the noise told is wrong by a random factor up to this, at least 1.
        factor: of the noise told: above 1 the data are trusted less, below more.
    """
    check_at_least(1, jitter=jitter)
    check_above(0, factor=factor)

    def init(sigma: float, steps: int) -> Params:
        return _first(sigma, steps) | {"noise_power": jnp.full(steps, 0.5, jnp.float32)}

    def factors(params: Params, noise: Any) -> tuple[Array, np.ndarray]:
        decades = jnp.log(noise / _REFERENCE_NOISE)
        return _factors(params["log_sigma"][:, None] + params["noise_power"][:, None] * decades)

    def told(measured: Measurement, rng: Array | None) -> Array:
        known = measured.noise
        if known is None:
            known = noise_level(measured.kspace, measured.mask)
        noise = jnp.clip(factor * known, *_NOISE_RANGE)
        if rng is None:
            return noise
        wrong = noise * jitter**jax.random.uniform(rng, noise.shape, noise.dtype, minval=-1.0)
        return jnp.clip(wrong, *_NOISE_RANGE)

    return Likelihood(sigma, init, factors, told, explicit=False)
