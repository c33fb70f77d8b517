"""The straight path from measured to fully sampled k-space, and the timesteps on it.

Flow time runs as in Qi et al. (arXiv 2512.03020): t = 1 is the measured, zero-filled k-space and
t = 0 the fully sampled one. Most flow-matching papers run the other way.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from flatjax.errors import InputError, check_above, check_at_least

_ROUNDING = 1e-4  # tolerance at the bound: timesteps are differences of float32 times


def interpolate(start: Array, end: Array, t: ArrayLike) -> Array:
    """The state at time `t`, `(1 - t) end + t start`; t broadcasts against the states."""
    t = jnp.asarray(t)
    return (1 - t) * end + t * start


def velocity(start: Array, end: Array) -> Array:
    """The ideal velocity `dk/dt = start - end`, constant along the straight path."""
    return start - end


def time_grid(steps: int, alpha: float = 0.0, times: Sequence[float] = ()) -> np.ndarray:
    """Times `1 = t_0 > t_1 > ... > t_K = 0` of K steps, `[K + 1]` float64.

    They are `t_j = (1 - j/K)^(1 + alpha)`, where `alpha = 0` is uniform, `alpha > 0` takes large
    steps first and small ones near t = 0, and `-1 < alpha < 0` the reverse; or the `times` given.

    Raises:
        InputError: if `steps < 1` or `alpha <= -1`, for times that are not K + 1 or do not
            fall from 1 to 0, or for steps too short to be told apart in float32.
    """
    check_at_least(1, steps=steps)
    check_above(-1, alpha=alpha)
    if len(times) not in (0, steps + 1):
        raise InputError(f"times has {len(times)} entries, expected steps + 1 = {steps + 1}: "
                         f"set steps to {len(times) - 1}, or give the times of {steps} steps")
    grid = np.asarray(times, np.float64) if len(times) else (
        (1 - np.arange(steps + 1) / steps) ** (1 + alpha))
    falls = (np.diff(grid.astype(np.float32)) < 0).all()
    if not (grid[0] == 1 and grid[-1] == 0 and falls):
        origin = "times" if len(times) else f"alpha is {alpha}, which makes the times"
        raise InputError(f"{origin} {tuple(grid.tolist())}, expected to fall from 1 to 0, each "
                         "below the one before, also in float32")
    return grid


def schedule(*, steps: int = 12, alpha: float = 0.0, times: Sequence[float] = ()) -> np.ndarray:
    """The times of a method, `[steps + 1]` float32; arguments and errors as in `time_grid`."""
    return time_grid(steps, alpha, times).astype(np.float32)


def check_stable(delta: ArrayLike, sigma: float, bound: float = 2.0) -> None:
    """Refuse timesteps `[K]` at which a solver amplifies the measurement residual.

    Each step of Euler's multiplies it by `1 + delta / sigma^2`, so `max |delta| / sigma^2 < 2` is
    needed; other solvers have other bounds, their `Solver.stability`. At the bound itself the
    residual does not decay.

    Raises:
        InputError: if `sigma <= 0` or the bound is broken, with the numbers.
    """
    check_above(0, sigma=sigma)
    largest = float(np.max(np.abs(np.asarray(delta))))
    if not largest / sigma**2 < bound * (1 - _ROUNDING):
        raise InputError(
            f"the largest timestep {largest:.4g} at sigma = {sigma:.4g} gives "
            f"|delta| / sigma^2 = {largest / sigma**2:.4g}, expected below {bound:g}: the solver "
            f"would diverge; take more steps or sigma > {np.sqrt(largest / bound):.4g}")
