"""Integration by any solver, on given times or with steps of its own."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from flatjax.errors import InputError, check_above
from flatjax.flow.scan import Record, identity, saved_indices, scan_steps
from flatjax.flow.solvers import (
    BOGACKI_SHAMPINE,
    EXPLICIT,
    SOLVERS,
    Solver,
    State,
    VectorField,
    per_element,
    stages,
    weighted_step,
)

ADAPTIVE = "adaptive"
# Of Bogacki and Shampine: third-order weights less the second-order ones, the last being that of
# the slope at the end.
_ERROR = (-5 / 72, 1 / 12, 1 / 9, -1 / 8)
_EXPONENT = -1 / 3  # the error of a step grows with its length to the power of 3
_SAFETY, _SMALLEST, _LARGEST = 0.9, 0.2, 10.0


def check_solver(solver: str, *, tolerance: float, split: bool = True) -> None:
    """Refuse a solver that does not exist or, unless a field is `split`, does not suit it."""
    check_above(0, tolerance=tolerance)
    known = (*(sorted(SOLVERS) if split else EXPLICIT), ADAPTIVE)
    if solver not in known:
        SOLVERS.outside(solver, known)


def solve(field: VectorField, state: State, times: ArrayLike, *, solver: str | Solver = "euler",
          args: Any = None, tolerance: float = 1e-3, trajectory: bool | int = False,
          record: Record = identity, remat: bool = False) -> tuple[State, Any, int | Array]:
    """Integrate a vector field along times.

    Args:
        field: `f(state, t, args_j) -> d state / d t`, where `args_j` is step j's slice of `args`;
            adaptive steps hand it all of them, and times `[batch]`.
        state: pytree of arrays at `times[0]`.
        times: `[K + 1]`, monotone.
        solver: a `Solver` or its name in `SOLVERS`, for one `lax.scan` over the steps between the
            times; or "adaptive", see `integrate_adaptive`, whose trajectory is interpolated.
        args: pytree whose leaves have a leading axis of K, one slice per step: per-cascade
            weights, for one. Anything common to all steps belongs in the closure of `field`.
        tolerance: of adaptive steps, relative and absolute.
        trajectory: which states are also returned, see `scan.saved_indices`.
        record: what is returned of them.
        remat: see `scan_steps`: the memory of a gradient hardly grows with K.

    Returns:
        `(final, records, evaluations)`: the state at `times[-1]`; the records `[saved, ...]` or
        None; and the evaluations of the field, one number, or `[batch]` int32 of adaptive steps.

    Raises:
        InputError: if `args` are those of another number of steps; for an unknown solver.
    """
    if isinstance(solver, str):
        check_solver(solver, tolerance=tolerance)
    if solver == ADAPTIVE:
        grid = np.asarray(times)
        grid = grid[saved_indices(len(grid) - 1, trajectory) if trajectory else [0, -1]]
        final, states, evaluations = integrate_adaptive(
            field, state, grid, args=args, tolerance=tolerance, trajectory=bool(trajectory))
        return final, jax.lax.map(record, states) if trajectory else None, evaluations
    scheme = SOLVERS[solver] if isinstance(solver, str) else solver
    times = jnp.asarray(times)
    delta = jnp.diff(times)
    for leaf in jax.tree.leaves(args):
        if jnp.shape(leaf)[:1] != delta.shape:
            raise InputError(
                f"parameters of {(*jnp.shape(leaf), 1)[0]} steps were given for {delta.size} "
                "steps, expected as many: weights, timesteps or step sizes that were learned one "
                "per step serve no other number of steps; shared weights on a schedule serve any")
    (final, _), records = scan_steps(
        partial(scheme.advance, field), (state, scheme.start(state, delta[0])),
        (times[:-1], delta, args), trajectory=trajectory,
        record=lambda carry: record(carry[0]), remat=remat)
    return final, records, delta.size * scheme.evaluations


class _Progress(NamedTuple):
    """How far the integration of each element is."""

    state: State  # pytree of `[batch, ...]`
    slope: State  # the field there, like `state`
    t: Array  # `[batch]`, as all below but the last two
    length: Array  # of the next step, not negative
    retried: Array  # the last step was rejected
    evaluations: Array  # of the field so far
    attempts: Array  # steps of the batch so far, a scalar
    states: State | None  # `[K + 1, batch, ...]`, NaN at times not reached; None unless asked for


def _choose(which: Array, ours: State, theirs: State) -> State:
    return jax.tree.map(lambda a, b: jnp.where(per_element(which, a), a, b), ours, theirs)


def _norm(vector: State, scale: State) -> Array:
    """Root mean square of `|vector| / scale` over each element of the batch."""
    squares = jax.tree.map(lambda v, s: jnp.square(jnp.abs(v) / s), vector, scale)
    flat = jnp.concatenate([leaf.reshape(leaf.shape[0], -1) for leaf in jax.tree.leaves(squares)],
                           axis=1)
    # How steps are chosen is not differentiated, and the root would not be at 0.
    return jnp.sqrt(jnp.mean(lax.stop_gradient(flat), axis=1))


def _first_length(field: VectorField, args: Any, state: State, slope: State, t: Array,
                  sign: Array, span: Array, scale: State) -> Array:
    """Hairer, Norsett and Wanner's starting step, at the cost of one evaluation."""
    size, speed = _norm(state, scale), _norm(slope, scale)
    tiny = (size < 1e-5) | (speed < 1e-5)
    trial = jnp.minimum(jnp.where(tiny, 1e-6, 0.01 * size / jnp.where(tiny, 1, speed)), span)
    ahead = field(weighted_step(state, [slope], [1.0], sign * trial), t + sign * trial, args)
    bend = _norm(jax.tree.map(jnp.subtract, ahead, slope), scale) / trial
    largest = jnp.maximum(speed, bend)
    length = jnp.where(largest <= 1e-15, jnp.maximum(1e-6, trial * 1e-3),
                       (0.01 / jnp.maximum(largest, 1e-15)) ** -_EXPONENT)
    return jnp.minimum(jnp.minimum(100 * trial, length), span)


def _between(times: Array, before: _Progress, reached: State, slope: State, step: Array) -> State:
    """Cubic Hermite interpolation of one step at all times: `[K + 1, batch, ...]`."""
    fraction = (times[:, None] - before.t) / jnp.where(step == 0, 1, step)

    def leaf(y: Array, z: Array, f: Array, g: Array) -> Array:
        s = per_element(fraction, y[None])
        h = per_element(step, y)
        return (1 - s) * y + s * z + s * (s - 1) * (
            (1 - 2 * s) * (z - y) + (s - 1) * h * f + s * h * g)

    return jax.tree.map(leaf, before.state, reached, before.slope, slope)


def integrate_adaptive(field: VectorField, state: State, times: ArrayLike, *, args: Any = None,
                       tolerance: float = 1e-3, max_steps: int = 1000,
                       trajectory: bool = False) -> tuple[State, State | None, Array]:
    """Integrate with steps as long as a tolerance allows: one bounded `lax.while_loop`.

    By the embedded pair of Bogacki and Shampine ("A 3(2) pair of Runge-Kutta formulas", Appl. Math.
    Lett. 2(4), 1989): three evaluations per step give a third-order state, and the slope there,
    with which the next step begins, a second-order one to compare it with. Control and first step
    are those of Hairer, Norsett and Wanner, "Solving Ordinary Differential Equations I", sec. II.4.

    Every element of the batch has its own time and its own steps, so its result does not depend on
    the others; the batch takes as long as its slowest element. A step is accepted if the root mean
    square of `|error| / (tolerance (1 + |y|))` over the element's entries is at most 1.

    It can be differentiated in forward mode, the steps being held as they were chosen, but not in
    reverse mode: train with a solver of `SOLVERS`.

    Args:
        field: `f(state, t, args) -> d state / d t`, with times `[batch]`, without exchange
            between elements of the batch. It is evaluated at both ends too.
        state: pytree of `[batch, ...]` at `times[0]`.
        times: `[K + 1]`, monotone. Only the ends matter to the steps; the states at the others
            are interpolated, to third order.
        args, tolerance: as in `solve`.
        max_steps: largest number of steps, rejected ones included.
        trajectory: also return the states at all `times`.

    Returns:
        As `solve`, with states `[K + 1, batch, ...]`. An element that ran out of steps, because
        its field is stiff or not finite, is NaN from there on.
    """
    times = jnp.asarray(times)
    leaves = jax.tree.leaves(state)
    first, last = (jnp.broadcast_to(t, leaves[0].shape[:1]) for t in (times[0], times[-1]))
    sign, span = jnp.sign(last - first), jnp.abs(last - first)

    def tolerated(*sizes: State) -> State:
        return jax.tree.map(
            lambda *own: tolerance + tolerance * jnp.maximum(*map(jnp.abs, own)), *sizes)

    def running(now: _Progress) -> Array:
        # A step below the resolution of the time, or of NaN, makes no progress.
        return (now.t != last) & (now.length > jnp.finfo(times.dtype).eps * jnp.abs(now.t))

    def unfinished(now: _Progress) -> Array:
        return (now.attempts < max_steps) & jnp.any(running(now))

    def attempt(now: _Progress) -> _Progress:
        left = jnp.abs(last - now.t)
        step = sign * jnp.minimum(now.length, left)
        slopes = stages(BOGACKI_SHAMPINE[0], field, now.state, now.slope, (now.t, step, args))
        reached = weighted_step(now.state, slopes, BOGACKI_SHAMPINE[1], step)
        t = jnp.where(now.length >= left, last, now.t + step)
        slope = field(reached, t, args)
        zero = jax.tree.map(jnp.zeros_like, now.state)
        error = _norm(weighted_step(zero, [*slopes, slope], _ERROR, step),
                      tolerated(now.state, reached))
        good = error <= 1
        factor = jnp.where(jnp.isfinite(error), jnp.clip(_SAFETY * error**_EXPONENT, _SMALLEST,
                                                         _LARGEST), _SMALLEST)
        factor = jnp.where(now.retried | ~good, jnp.minimum(factor, 1), factor)
        taken = running(now) & good
        states = now.states
        if trajectory:
            passed = (sign * (times[:, None] - now.t) > 0) & (sign * (times[:, None] - t) <= 0)
            states = _choose(passed & taken, _between(times, now, reached, slope, step), states)
        return _Progress(
            state=_choose(taken, reached, now.state), slope=_choose(taken, slope, now.slope),
            t=jnp.where(taken, t, now.t), length=jnp.abs(step) * factor, retried=~good,
            evaluations=now.evaluations + 3 * running(now), attempts=now.attempts + 1,
            states=states)

    slope = field(state, first, args)
    slope = jax.tree.map(lambda k, s: jnp.asarray(k, s.dtype), slope, state)
    length = _first_length(field, args, state, slope, first, sign, span, tolerated(state, state))
    states = None
    if trajectory:
        states = jax.tree.map(lambda s: jnp.full((times.size, *s.shape), jnp.nan, s.dtype)
                              .at[0].set(s), state)
    end = lax.while_loop(unfinished, attempt, _Progress(
        state, slope, first, length, retried=jnp.zeros(first.shape, bool),
        evaluations=jnp.full(first.shape, 2, jnp.int32), attempts=jnp.zeros((), jnp.int32),
        states=states))
    nothing = jax.tree.map(lambda s: jnp.full_like(s, jnp.nan), state)
    return _choose(end.t == last, end.state, nothing), end.states, end.evaluations
