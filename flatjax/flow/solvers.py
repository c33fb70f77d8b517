"""Solvers on a fixed grid of times: Runge-Kutta, Adams-Bashforth, implicit-explicit Euler.

A Runge-Kutta method is a Butcher tableau, so a new one is one more entry of `SOLVERS`; a method
that remembers earlier steps is a `Solver` with a memory. An implicit-explicit method takes one
part of a `SplitField` implicitly, and is stable however stiff that part is. States are arrays or
pytrees of arrays, real or complex. `flow.solve` integrates by them.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from flatjax.registry import Registry

State = Any
Memory = Any
VectorField = Callable[[State, Array, Any], State]
Carry = tuple[State, Memory]
Step = tuple[Array, Array, Any]  # its start, its length, and its slice of the arguments
# Of a Butcher tableau: row `i` weighs the `i` stages before stage `i`, and its sum is the time of
# that stage as a fraction of the step.
Rows = Sequence[Sequence[float]]


class Solver(NamedTuple):
    """A method for steps of given lengths.

    Attributes:
        order: of convergence.
        nodes: where in a step the field is evaluated, as fractions of it: one evaluation each.
        stability: z up to which `y' = -y` with steps of length z does not grow.
        advance: `(field, (state, memory), (t, delta, args)) -> (state, memory)`, the state at
            `t + delta`. delta is negative where time runs from 1 to 0; it is a scalar, as t is.
        start: `(state, delta) -> memory` before the first step, whose length is delta.
    """

    order: int
    nodes: tuple[float, ...]
    stability: float
    advance: Callable[[VectorField, Carry, Step], Carry]
    start: Callable[[State, Array], Memory] = lambda state, delta: ()

    @property
    def evaluations(self) -> int:
        """Evaluations of the field per step."""
        return len(self.nodes)


class SplitField(NamedTuple):
    """A vector field of two parts, `stiff(x) + smooth(x, t)`, which implicit-explicit solvers use.

    Attributes:
        smooth: `(state, t, args) -> d state / d t`, taken explicitly.
        stiff: `(state, args) -> d state / d t`.
        resolvent: `(state, delta, args) -> z` with `z = state + delta stiff(z)`: a step of implicit
            Euler in the stiff part alone.
    """

    smooth: VectorField
    stiff: Callable[[State, Any], State]
    resolvent: Callable[[State, Array, Any], State]

    def __call__(self, state: State, t: Array, args: Any) -> State:
        """The sum of both parts."""
        return jax.tree.map(jnp.add, self.stiff(state, args), self.smooth(state, t, args))


def per_element(values: ArrayLike, like: Array) -> Array:
    """One number, or one per batch element `[batch]`, with axes to broadcast against `like`."""
    return jnp.reshape(values, jnp.shape(values) + (1,) * (jnp.ndim(like) - jnp.ndim(values)))


def weighted_step(state: State, slopes: Sequence[State], weights: Sequence[float],
                  delta: ArrayLike) -> State:
    """`state + delta sum_i weights_i slopes_i`; delta is one number, or one per batch element."""
    def leaf(value: Array, *own: Array) -> Array:
        step = per_element(delta, value)
        for weight, slope in zip(weights, own, strict=True):
            if weight:
                value = value + (weight * step) * slope
        return value

    return jax.tree.map(leaf, state, *slopes)


def stages(rows: Rows, field: VectorField, state: State, slope: State, step: Step) -> list[State]:
    """The slopes of all stages of a step, of which the first, at its start, is given."""
    t, delta, args = step
    slopes = [slope]
    for row in rows[1:]:
        ahead = weighted_step(state, slopes, row, delta)
        slopes.append(field(ahead, t + sum(row) * delta, args))
    return slopes


def runge_kutta(rows: Rows, weights: Sequence[float], *, order: int, stability: float) -> Solver:
    """The explicit `Solver` of a Butcher tableau: its rows, and the stages' weights in the step."""
    def advance(field: VectorField, carry: Carry, step: Step) -> Carry:
        (state, memory), (t, delta, args) = carry, step
        slopes = stages(rows, field, state, field(state, t, args), step)
        return weighted_step(state, slopes, weights, delta), memory

    return Solver(order, tuple(float(sum(row)) for row in rows), stability, advance)


def adams_bashforth_2() -> Solver:
    """Two-step Adams-Bashforth for steps of any lengths, one evaluation each.

    With the ratio r of this step's length to the one before, the step weighs the slopes here and
    there by 1 + r/2 and -r/2 (Hairer, Norsett and Wanner, "Solving Ordinary Differential Equations
    I", sec. III.5). Its memory is the slope and the length of the step before; the length is
    infinite at first, which makes the first step one of Euler's.
    """
    def start(state: State, delta: Array) -> Memory:
        return jax.tree.map(jnp.zeros_like, state), jnp.full_like(delta, jnp.inf)

    def advance(field: VectorField, carry: Carry, step: Step) -> Carry:
        (state, (before, length)), (t, delta, args) = carry, step
        half = delta / length / 2
        slope = jax.tree.map(lambda k, s: jnp.asarray(k, s.dtype), field(state, t, args), before)
        reached = jax.tree.map(lambda s, k, b: s + delta * ((1 + half) * k - half * b),
                               state, slope, before)
        return reached, (slope, jnp.asarray(delta, length.dtype))

    return Solver(order=2, nodes=(0.0,), stability=1.0, advance=advance, start=start)


def implicit_explicit_euler() -> Solver:
    """Explicit Euler in the smooth part of a `SplitField`, then implicit Euler in the stiff one.

    First order, one evaluation of the smooth part per step, and no bound on the stiff part (Ascher,
    Ruuth and Wetton, SIAM J. Numer. Anal. 32(3), 1995).
    """
    def advance(field: VectorField, carry: Carry, step: Step) -> Carry:
        (state, memory), (t, delta, args) = carry, step
        if not isinstance(field, SplitField):
            raise TypeError("the solver 'imex' needs a SplitField, whose stiff part it takes "
                            f"implicitly; got {type(field).__name__}")
        ahead = weighted_step(state, [field.smooth(state, t, args)], [1.0], delta)
        return field.resolvent(ahead, delta, args), memory

    return Solver(order=1, nodes=(0.0,), stability=float("inf"), advance=advance)


# The third-order half of the pair of Bogacki and Shampine, Appl. Math. Lett. 2(4), 1989.
BOGACKI_SHAMPINE = (((), (0.5,), (0.0, 0.75)), (2 / 9, 1 / 3, 4 / 9))

SOLVERS = Registry("solver", "flatjax.solvers", {
    "euler": runge_kutta(((),), (1.0,), order=1, stability=2.0),
    "midpoint": runge_kutta(((), (0.5,)), (0.0, 1.0), order=2, stability=2.0),
    "heun": runge_kutta(((), (1.0,)), (0.5, 0.5), order=2, stability=2.0),
    "ralston": runge_kutta(((), (2 / 3,)), (0.25, 0.75), order=2, stability=2.0),
    "ab2": adams_bashforth_2(),
    "bs3": runge_kutta(*BOGACKI_SHAMPINE, order=3, stability=2.512),
    "rk4": runge_kutta(((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6),
                       order=4, stability=2.785),
    "imex": implicit_explicit_euler(),
}, kind=Solver)

EXPLICIT = tuple(sorted(name for name in SOLVERS if name != "imex"))  # serve any field
