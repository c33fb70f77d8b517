"""The straight path from measured to fully sampled k-space.

Flow time runs as in Qi et al. (arXiv 2512.03020): t = 1 is the measured, zero-filled k-space and
t = 0 the fully sampled one. Most flow-matching papers run the other way.
"""

from typing import Any

from jax import Array
from jax.typing import ArrayLike


def interpolate(start: Array, end: Array, t: ArrayLike) -> Array:
    """The state at time `t` of the straight path: `(1 - t) end + t start`.

    Args:
        start: state at t = 1, `[batch, coil, ky, kx]` complex64.
        end: state at t = 0, same shape.
        t: flow time in [0, 1], a scalar or broadcastable to the states.
    """
    time: Any = t  # numpy's stubs have an array times one of JAX's as one of theirs
    return (1 - time) * end + time * start


def velocity(start: Array, end: Array) -> Array:
    """The ideal velocity `dk/dt = start - end`, constant along the straight path."""
    return start - end
