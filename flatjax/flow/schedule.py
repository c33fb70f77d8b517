"""Timesteps of the flow; a cascade as an Euler step and as an unrolled update.

A cascade is an Euler step of `dk/dt = M (k - y) / sigma^2 + v(k, t)` of length `delta < 0`, and
also one first-order unrolled update `k - eta M (k - y) + lam G(k)`. They are the same map with

    eta = -delta / sigma^2,    lam = -delta,    G = -v

which is Theorem 1 of Qi et al. (arXiv 2512.03020) and holds step by step.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from flatjax.errors import InputError

_ROUNDING = 1e-4  # tolerance at the bound: timesteps are differences of float32 times


def time_grid(steps: int, alpha: float = 0.0, times: Sequence[float] = ()) -> np.ndarray:
    """Times `1 = t_0 > t_1 > ... > t_K = 0`, with `t_j = (1 - j/K)^(1 + alpha)`.

    `alpha = 0` is uniform; `alpha > 0` takes large steps first and small ones near t = 0;
    `-1 < alpha < 0` the reverse.

    Args:
        steps: K, number of steps, at least 1.
        alpha: exponent of the family, above -1.
        times: the K + 1 times themselves, in place of the family's; empty for those.

    Returns:
        `[K + 1]` float64.

    Raises:
        InputError: if `steps < 1` or `alpha <= -1`, for times that are not K + 1 or do not
            fall from 1 to 0, or for steps too short to be told apart in float32.
    """
    if steps < 1:
        raise InputError(f"steps is {steps}, expected at least 1: a flow needs a step")
    if not alpha > -1:
        raise InputError(f"alpha is {alpha}, expected above -1: at -1 and below the times "
                         "do not fall from 1 to 0; use 0 for uniform steps")
    if not len(times):
        grid = (1 - np.arange(steps + 1) / steps) ** (1 + alpha)
        if not _falls(grid):
            raise InputError(f"alpha is {alpha}, expected nearer to 0: some of the {steps} steps "
                             "would have no length in float32")
        return grid
    given = np.asarray(times, np.float64)
    if len(given) != steps + 1:
        raise InputError(f"times has {len(given)} entries, expected steps + 1 = {steps + 1}: "
                         f"set steps to {len(given) - 1}, or give the times of {steps} steps")
    if not (given[0] == 1 and given[-1] == 0 and _falls(given)):
        raise InputError(f"times is {tuple(given.tolist())}, expected to fall from 1 to 0, each "
                         "below the one before, also in float32")
    return given


class Schedule(NamedTuple):
    """The times of a flow; see `schedule`.

    Attributes:
        times: `[steps + 1]` float32, falling from 1 to 0.
    """

    times: np.ndarray

    @property
    def steps(self) -> int:
        """K, the number of steps."""
        return len(self.times) - 1

    @property
    def delta(self) -> np.ndarray:
        """Timesteps `t_{j+1} - t_j`, `[steps]` float32, all negative."""
        return np.diff(self.times)


def schedule(*, steps: int = 12, alpha: float = 0.0, times: Sequence[float] = ()) -> Schedule:
    """The timesteps of a method.

    Args:
        steps: K, the number of steps.
        alpha: of the family `t_j = (1 - j/K)^(1 + alpha)`; 0 is uniform.
        times: `t_0, ..., t_K` themselves, in place of the family's; empty for those.

    Raises:
        InputError: as `time_grid`.
    """
    return Schedule(time_grid(steps, alpha, times).astype(np.float32))


def _falls(times: np.ndarray) -> bool:
    return bool((np.diff(times.astype(np.float32)) < 0).all())


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


def check_stable(delta: ArrayLike, sigma: float, bound: float = 2.0) -> None:
    """Refuse timesteps at which a solver amplifies the measurement residual.

    Each step of Euler's multiplies it by `1 + delta / sigma^2`, so `max |delta| / sigma^2 < 2` is
    needed; other solvers have other bounds. At the bound itself the residual does not decay.

    Args:
        delta: timesteps `[K]`.
        sigma: measurement-noise scale of the likelihood.
        bound: `Solver.stability`.

    Raises:
        InputError: if `sigma <= 0` or the bound is broken, with the numbers.
    """
    if not sigma > 0:
        raise InputError(f"sigma is {sigma}, expected above 0: it is the scale of the "
                         "measurement noise in the likelihood")
    largest = float(np.max(np.abs(np.asarray(delta))))
    if not largest / sigma**2 < bound * (1 - _ROUNDING):
        raise InputError(
            f"the largest timestep {largest:.4g} at sigma = {sigma:.4g} gives "
            f"|delta| / sigma^2 = {largest / sigma**2:.4g}, expected below {bound:g}: the solver "
            f"would diverge; take more steps or sigma > {np.sqrt(largest / bound):.4g}")
