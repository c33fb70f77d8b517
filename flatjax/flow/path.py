"""The straight path from measured to fully sampled k-space.

Flow time runs as in Qi et al. (arXiv 2512.03020): t = 1 is the measured, zero-filled k-space and
t = 0 the fully sampled one. Most flow-matching papers run the other way.
"""

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike


def interpolate(start: Array, end: Array, t: ArrayLike) -> Array:
    """The state at time `t`, `(1 - t) end + t start`; t broadcasts against the states."""
    t = jnp.asarray(t)
    return (1 - t) * end + t * start


def velocity(start: Array, end: Array) -> Array:
    """The ideal velocity `dk/dt = start - end`, constant along the straight path."""
    return start - end
