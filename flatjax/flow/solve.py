"""The one door to integration: by any solver, on given times or with steps of its own."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from flatjax.errors import InputError
from flatjax.flow.adaptive import integrate_adaptive
from flatjax.flow.scan import Record, identity, saved_indices, scan_steps
from flatjax.flow.solvers import EXPLICIT, SOLVERS, Solver, State, VectorField

ADAPTIVE = "adaptive"


def check_solver(solver: str, *, tolerance: float, split: bool = True) -> None:
    """Refuse a solver that does not exist or does not suit a field.

    Args:
        solver: name in `SOLVERS`, or "adaptive".
        tolerance: of adaptive steps.
        split: the field is a `SplitField`, which implicit-explicit solvers need.

    Raises:
        InputError: naming the choices.
    """
    if not tolerance > 0:
        raise InputError(f"tolerance is {tolerance}, expected above 0")
    names = (*(sorted(SOLVERS) if split else EXPLICIT), ADAPTIVE)
    if solver not in names:
        raise InputError(f"solver is {solver!r}, expected one of {', '.join(names)}")


def solve(field: VectorField, state: State, times: ArrayLike, *, solver: str | Solver = "euler",
          args: Any = None, tolerance: float = 1e-3, trajectory: bool | int = False,
          record: Record = identity, remat: bool = False) -> tuple[State, Any, int | Array]:
    """Integrate a vector field along times.

    Args:
        field: `f(state, t, args_j) -> d state / d t`, where `args_j` is step j's slice of `args`;
            of adaptive steps all of them, with times `[batch]`.
        state: pytree of arrays at `times[0]`.
        times: `[K + 1]`, monotone.
        solver: a `Solver` or its name in `SOLVERS`, one `lax.scan` whose steps are those between
            the times; or "adaptive", see `integrate_adaptive`, whose trajectory is interpolated.
        args: pytree whose leaves have a leading axis of K, one slice per step: per-cascade
            weights, for one. Anything common to all steps belongs in the closure of `field`.
        tolerance: of adaptive steps, relative and absolute.
        trajectory: which states are also returned, see `walk.kept`.
        record: what is returned of them.
        remat: recompute a step in the backward pass rather than keep its activations, so that
            the memory of a gradient hardly grows with K.

    Returns:
        `(final, records, evaluations)`: the state at `times[-1]`; with `trajectory` the stacked
        records `[kept, ...]`, the first being that of the start, otherwise None; and the
        evaluations of the field, one number, or `[batch]` int32 of adaptive steps.

    Raises:
        InputError: if `args` are those of another number of steps; for an unknown solver.
    """
    if solver == ADAPTIVE:
        grid = np.asarray(times)
        grid = grid[saved_indices(len(grid) - 1, trajectory) if trajectory else [0, -1]]
        final, states, evaluations = integrate_adaptive(
            field, state, grid, args=args, rtol=tolerance, atol=tolerance,
            trajectory=bool(trajectory))
        return final, jax.lax.map(record, states) if trajectory else None, evaluations
    if isinstance(solver, str):
        check_solver(solver, tolerance=tolerance)
        solver = SOLVERS[solver]
    times = jnp.asarray(times)
    delta = jnp.diff(times)
    for leaf in jax.tree.leaves(args):
        if jnp.shape(leaf)[:1] != delta.shape:
            raise InputError(
                f"parameters of {(*jnp.shape(leaf), 1)[0]} steps were given for {delta.size} "
                "steps, expected as many: weights, timesteps or step sizes that were learned one "
                "per step serve no other number of steps; shared weights on a schedule serve any")
    (final, _), records = scan_steps(
        partial(solver.advance, field), (state, solver.start(state, delta[0])),
        (times[:-1], delta, args), trajectory=trajectory,
        record=lambda carry: record(carry[0]), remat=remat)
    return final, records, delta.size * solver.evaluations
