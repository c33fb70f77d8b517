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

from flatjax.errors import InputError
from flatjax.mri import Measurement, noise_level

Params = Any

_REFERENCE_NOISE = 0.01  # at which the sigma of `noise_sigma` is the one that it starts from
_NOISE_RANGE = (1e-4, 0.3)


class Likelihood(NamedTuple):
    """How sigma is chosen.

    Attributes:
        sigma: its value, or the one it is learned from; None for the default of the solver.
        init: `(sigma, steps) -> params`, a dict of what is learned.
        precision: `(params, noise) -> 1 / sigma^2`, `[steps]`, or `[steps, batch]` if it follows
            the noise; None where sigma is fixed.
        noise: `measurement -> [batch]`, the noise that the network is told; None if it is not.
        perturb: `(rng, noise) -> noise` as it is told in training.
    """

    sigma: float | None = None
    init: Callable[[float, int], Params] = lambda sigma, steps: {}
    precision: Callable[..., Array] | None = None
    noise: Callable[[Measurement], Array] | None = None
    perturb: Callable[[Array, Array], Array] = lambda rng, noise: noise


def _check_sigma(sigma: float | None) -> None:
    if sigma is not None and not sigma > 0:
        raise InputError(f"sigma is {sigma}, expected above 0: it is the scale of the "
                         "measurement noise in the likelihood")


def fixed_sigma(*, sigma: float | None = None) -> Likelihood:
    """The same sigma at all steps.

    Args:
        sigma: on the scale of an image with maximum 1; by default `K^-0.5`, at which the mean
            data-consistency step eta is 1, and 0.1 with the solver "imex".

    Raises:
        InputError: for a sigma that is not above 0.
    """
    _check_sigma(sigma)
    return Likelihood(sigma)


def _first(sigma: float, steps: int) -> Params:
    return {"log_sigma": jnp.full(steps, np.log(sigma), jnp.float32)}


def learned_sigma(*, sigma: float | None = None) -> Likelihood:
    """A sigma for each step, learned; for the solver "imex", which is stable for any.

    Args:
        sigma: to start from, by default 0.1.

    Raises:
        InputError: for a sigma that is not above 0.
    """
    _check_sigma(sigma)
    return Likelihood(sigma, _first, lambda params, noise: jnp.exp(-2 * params["log_sigma"]))


def noise_sigma(*, sigma: float | None = None, jitter: float = 2.0,
                factor: float = 1.0) -> Likelihood:
    """`sigma_j (noise / 0.01)^p_j` of the measurement's noise, both learned, from p = 1/2.

    The network is told the noise, too. A noise that is not known is `mri.noise_level`. For the
    solver "imex", as `learned_sigma`.

    Args:
        sigma: to start from, by default 0.1.
        jitter: in training the noise told is wrong by a random factor up to this.
        factor: multiplies the noise told: above 1 the data are trusted less, below more.

    Raises:
        InputError: for a value out of range.
    """
    _check_sigma(sigma)
    if not jitter >= 1:
        raise InputError(f"jitter is {jitter}, expected at least 1")
    if not factor > 0:
        raise InputError(f"factor is {factor}, expected above 0")

    def precision(params: Params, noise: Array) -> Array:
        decades = jnp.log(noise / _REFERENCE_NOISE)
        log_sigma = params["log_sigma"][:, None] + params["noise_power"][:, None] * decades
        return jnp.exp(-2 * log_sigma)

    def told(measured: Measurement) -> Array:
        known = measured.noise
        if known is None:
            known = noise_level(measured.kspace, measured.mask)
        return jnp.clip(factor * known, *_NOISE_RANGE)

    def perturb(rng: Array, noise: Array) -> Array:
        return noise * jitter**jax.random.uniform(rng, noise.shape, minval=-1.0)

    return Likelihood(
        sigma, lambda start, steps: _first(start, steps) | {"noise_power": jnp.full(steps, 0.5)},
        precision, told, perturb)
