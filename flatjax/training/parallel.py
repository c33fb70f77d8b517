"""Data parallelism: one step on every device, each with its share of the batch."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax

from flatjax.methods import Method
from flatjax.mri import Batch

AXIS = "devices"


class TrainState(NamedTuple):
    """All that training changes; with the config it determines everything that follows."""

    step: Array  # updates done, int32 scalar
    params: Any
    opt_state: Any
    ema: Any  # running average of the weights, or an empty dict

    @property
    def evaluated(self) -> Any:
        """The weights to validate and evaluate: the average if there is one."""
        return self.ema or self.params


def make_update(method: Method, optimizer: optax.GradientTransformation, *,
                ema_decay: float = 0.0, axis_name: str | None = None) -> Callable:
    """One update of the weights, as a pure function.

    Where a metric is not finite, all but the step stays as it was: no state is ever spoiled.

    Args:
        method: whose loss is minimized.
        optimizer: from optax.
        ema_decay: of the averaged weights, at most `(1 + step) / (10 + step)`; 0 for none.
        axis_name: mapped axis over which to average gradients and metrics; None for none.

    Returns:
        `(state, rng, batch) -> (state, metrics)`; arrays of the batch are `[accumulate, batch,
        ...]`. The metrics are scalars: loss, its terms, and global norms of gradient and update.
    """
    gradient = jax.value_and_grad(method.loss, has_aux=True)

    def update(state: TrainState, rng: Array, batch: Batch) -> tuple[TrainState, dict]:
        rng = jax.random.fold_in(rng, state.step)
        if axis_name:
            rng = jax.random.fold_in(rng, lax.axis_index(axis_name))

        def part_gradient(index: Array, part: Batch) -> tuple[Any, dict[str, Array]]:
            key = jax.random.fold_in(rng, index)
            (loss, terms), grads = gradient(state.params, key, part)
            return grads, {"loss": loss, **terms}

        def accumulate(total: Any, xs: tuple[Array, Batch]) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, part_gradient(*xs)), None

        parts = batch.target.shape[0]
        total = part_gradient(jnp.zeros((), jnp.int32), jax.tree.map(lambda x: x[0], batch))
        if parts > 1:
            rest = (jnp.arange(1, parts), jax.tree.map(lambda x: x[1:], batch))
            total, _ = lax.scan(accumulate, total, rest)
        grads, metrics = jax.tree.map(lambda x: x / parts, total)
        if axis_name:
            grads, metrics = lax.pmean((grads, metrics), axis_name)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = state.ema
        if ema_decay:
            # Shorter at first: the average of few updates would be of untrained weights.
            decay = jnp.minimum(ema_decay, (1 + state.step) / (10 + state.step))
            ema = optax.incremental_update(params, ema, 1 - decay)
        metrics |= {"gradient_norm": optax.tree.norm(grads),
                    "update_norm": optax.tree.norm(updates)}
        finite = jnp.all(jnp.isfinite(jnp.stack(jax.tree.leaves(metrics))))
        learned = jax.tree.map(lambda new, old: jnp.where(finite, new, old),
                               (params, opt_state, ema), tuple(state[1:]))
        return TrainState(state.step + 1, *learned), metrics

    return update


def skipped(state: TrainState) -> int:
    """How many updates were left out because something was not finite."""
    counts = optax.tree.get_all_with_path(state.opt_state, "count")
    return int(state.step) - int(counts[0][1])


def pmapped(update: Callable) -> Callable:
    """`update` on all devices at once: arrays of the batch are `[devices, accumulate, batch, ...]`.

    State and key go in and come out as they are, unstacked.
    """
    return jax.pmap(update, axis_name=AXIS, in_axes=(None, None, 0), out_axes=None)


def shard(batch: Batch, devices: int, accumulate: int) -> Batch:
    """Arrays `[devices * accumulate * b, ...]` as `[devices, accumulate, b, ...]`."""
    return jax.tree.map(lambda x: x.reshape(devices, accumulate, -1, *x.shape[1:]), batch)
