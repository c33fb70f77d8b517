"""Explicit Runge-Kutta solvers for the flow's ODE.

A solver is a Butcher tableau; a new one is one more entry of `SOLVERS`. States are arrays or
pytrees of arrays, real or complex.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from flatjax.errors import InputError

State = Any
VectorField = Callable[[State, Array, Any], State]


class Tableau(NamedTuple):
    """An explicit Runge-Kutta method.

    Attributes:
        a: lower-triangular stage weights: row `i` weighs the `i` stages before stage `i`.
        b: weights of the stages in the step.
        c: stage times as fractions of the step.
        order: of convergence.
    """

    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    c: tuple[float, ...]
    order: int

    @property
    def stages(self) -> int:
        """Evaluations of the vector field per step."""
        return len(self.b)


SOLVERS: dict[str, Tableau] = {
    "euler": Tableau(a=((),), b=(1.0,), c=(0.0,), order=1),
    "midpoint": Tableau(a=((), (0.5,)), b=(0.0, 1.0), c=(0.0, 0.5), order=2),
    "heun": Tableau(a=((), (1.0,)), b=(0.5, 0.5), c=(0.0, 1.0), order=2),
    "rk4": Tableau(a=((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)),
                   b=(1 / 6, 1 / 3, 1 / 3, 1 / 6), c=(0.0, 0.5, 0.5, 1.0), order=4),
}


def solver(name: str) -> Tableau:
    """The tableau of that name.

    Raises:
        InputError: if there is none.
    """
    if name not in SOLVERS:
        raise InputError(f"solver is {name!r}, expected one of {', '.join(sorted(SOLVERS))}")
    return SOLVERS[name]


def _add(state: State, increments: list[tuple[Array, State]]) -> State:
    for weight, increment in increments:
        state = jax.tree.map(lambda s, k, w=weight: s + w * k, state, increment)
    return state


def step(tableau: Tableau, field: VectorField, state: State, t: ArrayLike, delta: ArrayLike,
         args: Any = None) -> State:
    """One step of length `delta` from `state` at time `t`.

    Args:
        tableau: the method.
        field: `f(state, t, args) -> d state / d t`.
        state: pytree of arrays.
        t: time at the start of the step.
        delta: signed length of the step; negative, since the flow runs from t = 1 to 0.
        args: handed to `field`.

    Returns:
        the state at `t + delta`.
    """
    slopes: list[State] = []
    for row, fraction in zip(tableau.a, tableau.c, strict=True):
        inner = [(a * delta, k) for a, k in zip(row, slopes, strict=True) if a]
        slopes.append(field(_add(state, inner), t + fraction * delta, args))
    return _add(state, [(b * delta, k) for b, k in zip(tableau.b, slopes, strict=True) if b])


def integrate(field: VectorField, state: State, times: ArrayLike, *, tableau: Tableau,
              args: Any = None, trajectory: bool = False,
              remat: bool = False) -> tuple[State, State | None]:
    """Integrate along a grid of times: one `lax.scan` over the steps.

    Args:
        field: `f(state, t, args_j) -> d state / d t`, where `args_j` is step j's slice of `args`.
        state: pytree of arrays at `times[0]`.
        times: `[K + 1]`, monotone.
        tableau: from `solver`.
        args: pytree whose leaves have a leading axis of K, one slice per step: per-cascade
            weights, for one. Anything common to all steps belongs in the closure of `field`.
        trajectory: also return every state.
        remat: recompute a step in the backward pass rather than keep its activations, so that
            the memory of a gradient hardly grows with K.

    Returns:
        `(final, states)`: the state at `times[-1]`, and with `trajectory` the stacked states
        `[K + 1, ...]`, the first being the start; otherwise None.
    """
    times = jnp.asarray(times)

    def body(carry: State, xs: tuple[Array, Array, Any]) -> tuple[State, State | None]:
        t, delta, slice_ = xs
        reached = step(tableau, field, carry, t, delta, slice_)
        return reached, reached if trajectory else None

    if remat:
        body = jax.checkpoint(body, prevent_cse=False)
    final, states = lax.scan(body, state, (times[:-1], jnp.diff(times), args))
    if trajectory:
        states = jax.tree.map(lambda s, first: jnp.concatenate([first[None], s]), states, state)
    return final, states
