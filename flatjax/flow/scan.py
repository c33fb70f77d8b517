"""A `lax.scan` over steps that also saves states: all of them, or some, evenly spread."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from flatjax.errors import InputError

State = Any
Record = Callable[[State], Any]


def identity(state: State) -> State:
    """The record that is the state itself."""
    return state


def saved_indices(steps: int, trajectory: bool | int) -> np.ndarray:
    """Which of the states 0 to `steps` a trajectory holds, `[saved]` int64, rising.

    It is True for every state, False or 0 for none, or the largest number of states, evenly spread
    from the first to the last; InputError for a number that has no room for those two.
    """
    if not trajectory:
        return np.arange(0)
    if trajectory is True:
        return np.arange(steps + 1)
    if trajectory < 2:
        raise InputError(f"trajectory is {trajectory}, expected True, False or a number of states, "
                         "at least 2: the first and the last")
    count = min(trajectory, steps + 1)
    return steps * np.arange(count) // max(count - 1, 1)


def scan_steps(advance: Callable[[State, Any], State], start: State, xs: Any, *,
               trajectory: bool | int = False, record: Record = identity,
               remat: bool = False) -> tuple[State, Any]:
    """Steps as one `lax.scan`: the last state, and the records `[saved, ...]` or None.

    Args:
        advance: `(state, xs_j) -> state`.
        start: first state, a pytree of arrays.
        xs: pytree of arrays with a leading axis of steps.
        trajectory: which states are recorded, the start being one, see `saved_indices`. The memory
            of the records depends on their number alone, not on the steps between them.
        record: what is saved of a state.
        remat: recompute a step in the backward pass rather than keep its activations.
    """
    steps = jax.tree.leaves(xs)[0].shape[0]
    indices = saved_indices(steps, trajectory)
    advance = jax.checkpoint(advance, prevent_cse=False) if remat else advance
    first = record(start) if trajectory else None
    if len(indices) in (0, steps + 1):
        def stacked(state: State, x: Any) -> tuple[State, Any]:
            state = advance(state, x)
            return state, record(state) if trajectory else None

        final, rest = lax.scan(stacked, start, xs)
        return final, jax.tree.map(lambda one, others: jnp.concatenate([one[None], others]),
                                   first, rest)

    # Each state is written to the slot of the next index to be saved, where the state of that
    # index replaces it.
    def thinned(carry: tuple[State, Any], x: tuple[Array, Any]) -> tuple[tuple[State, Any], None]:
        (state, records), (slot, x) = carry, x
        state = advance(state, x)
        return (state, jax.tree.map(lambda all_, one: all_.at[slot].set(one), records,
                                    record(state))), None

    slots = np.searchsorted(indices, np.arange(1, steps + 1))
    records = jax.tree.map(
        lambda one: jnp.zeros((len(indices), *one.shape), one.dtype).at[0].set(one), first)
    (final, records), _ = lax.scan(thinned, (start, records), (slots, xs))
    return final, records
