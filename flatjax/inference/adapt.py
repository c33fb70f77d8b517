"""Fine-tuning on the scan at hand, which is undersampled and has no reference.

Zero-shot self-supervision: Yaman, Hosseini, Akcakaya, "Zero-Shot Self-Supervised Learning for MRI
Reconstruction", ICLR 2022 (arXiv 2102.07737). The measured samples are split in three: Theta for
the method, Lambda for the loss, both drawn anew for each update, and a part that is kept from both
and decides when to stop.
"""

import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import optax
from jax import Array
from tqdm import tqdm

from flatjax import losses
from flatjax.errors import InputError, check_above
from flatjax.methods import Method, Params, check_split, self_supervised
from flatjax.methods.self_supervised import split
from flatjax.mri import Batch, Measurement

VALIDATION_SHARE = 0.2  # as in the paper, of what can be held out
LEARNING_RATE = 1e-3
VALIDATE_EVERY = 5  # updates
PATIENCE = 12  # validations in turn without a smaller error
MOST_VALIDATED = 8  # slices


def adapt(method: Method, params: Params, slices: Sequence[Measurement], *, minutes: float = 5.0,
          seed: int = 0) -> tuple[Params, list[float]]:
    """Weights fine-tuned on slices of one scan, and their validation errors on the way.

    The weights are those of the smallest validation error, so never worse by it than `params`.
    Updates take a slice each. As time is limited, results differ between machines.

    Args:
        method: that the weights belong to.
        params: to start from.
        slices: of one shape without batch axis, as `data.prepare` makes them; empty ones are not
            looked at.
        minutes: at most, with compilation; at least one update is made.
        seed: of the splits.

    Returns:
        the weights, and the error before any update and after every `VALIDATE_EVERY` of them: the
        relative l1 plus relative l2 error, see `losses.relative_error`, mean over slices.

    Raises:
        InputError: for a scan that is not undersampled, has too few samples to be split in three
            or is empty; weights that there are none of; a loss that is not finite.
    """
    end = time.monotonic() + 60 * minutes
    check_above(0, minutes=minutes)
    slices = [one for one in slices if np.any(one.kspace)]
    if not slices or not jax.tree.leaves(params):
        raise InputError(f"there are {len(slices)} slices with signal and "
                         f"{len(jax.tree.leaves(params))} arrays of weights, expected some of both "
                         "to adapt a model")
    learner = self_supervised(method)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(LEARNING_RATE))
    key_split, key_train = jax.random.split(jax.random.key(seed))
    parts = []
    for index, one in enumerate(slices):
        measured: Any = jax.tree.map(lambda x: np.asarray(x)[None], one)
        check_split(measured, VALIDATION_SHARE)
        theta, held = split(jax.random.fold_in(key_split, index), measured, VALIDATION_SHARE,
                            "uniform")
        check_split(theta, 0.4)
        parts.append((theta, held, measured.kspace))

    @jax.jit
    def error(params: Params, theta: Measurement, held: Array, kspace: Array) -> Array:
        predicted = method.reconstruct(params, key_split, theta).kspace
        return losses.relative_error(prediction=held * predicted, target=held * kspace)[0]

    @jax.jit
    def update(params: Params, state: Any, key: Array, theta: Measurement) -> tuple[Params, Any]:
        batch = Batch(theta, theta.kspace, theta.mask[:, 0])  # of which only the first is used
        grads, _ = jax.grad(learner.loss, has_aux=True)(params, key, batch)
        steps, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, steps), state

    shown = np.unique(np.linspace(0, len(parts) - 1, MOST_VALIDATED).round().astype(int))

    def validate(params: Params) -> float:
        return float(np.mean([error(params, *parts[index]) for index in shown]))

    best = params = jax.device_put(params)
    errors, state = [validate(params)], optimizer.init(params)
    order = np.random.default_rng(seed)
    with tqdm(desc="adapt", unit="update") as bar:
        while time.monotonic() < end and len(errors) - int(np.argmin(errors)) <= PATIENCE:
            for _ in range(VALIDATE_EVERY):
                theta, *_ = parts[order.integers(len(parts))]
                params, state = update(params, state, jax.random.fold_in(key_train, bar.n), theta)
                jax.block_until_ready(params)
                bar.update()
                if time.monotonic() > end:
                    break
            errors.append(validate(params))
            if not np.isfinite(errors[-1]):
                raise InputError("the validation error is not finite; take a model that did not "
                                 "diverge")
            if errors[-1] == min(errors):
                best = params
            bar.set_postfix(validation_error=f"{errors[0]:.4f} -> {min(errors):.4f}")
    return best, errors
