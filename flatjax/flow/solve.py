"""Integration by any solver, on given times or with steps of its own."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from flatjax.errors import InputError, check_above, check_choice
from flatjax.flow.adaptive import integrate_adaptive
from flatjax.flow.scan import Record, identity, saved_indices, scan_steps
from flatjax.flow.solvers import EXPLICIT, SOLVERS, Solver, State, VectorField

ADAPTIVE = "adaptive"


def check_solver(solver: str, *, tolerance: float, split: bool = True) -> None:
    """Refuse a solver that does not exist or, unless a field is `split`, does not suit it."""
    check_above(0, tolerance=tolerance)
    check_choice("solver", solver, (*(sorted(SOLVERS) if split else EXPLICIT), ADAPTIVE))


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
        remat: recompute a step in the backward pass rather than keep its activations, so that
            the memory of a gradient hardly grows with K.

    Returns:
        `(final, records, evaluations)`: the state at `times[-1]`; with `trajectory` the stacked
        records `[saved, ...]`, the first being that of the start, otherwise None; and the
        evaluations of the field, one number, or `[batch]` int32 of adaptive steps.

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
