"""Training: from a config and a workdir to checkpoints, resumable at any of them."""

from collections.abc import Callable
from contextlib import closing
from operator import itemgetter
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from ml_collections import ConfigDict

from flatjax import config as configuration
from flatjax.config import Training
from flatjax.data import Acquisition, DataSet, training_batch
from flatjax.data.batches import measure_volume
from flatjax.data.splits import restore_split, write_split
from flatjax.errors import InputError
from flatjax.evaluation.scoring import quality, score_volume, scorer
from flatjax.files import locked
from flatjax.methods import Method
from flatjax.mri import Batch
from flatjax.runs.checkpoint import Checkpoints, check_params
from flatjax.runs.hosts import broadcast_from_first, is_first, share, writable
from flatjax.runs.workdir import claim, load_config
from flatjax.training.loop import run_steps
from flatjax.training.parallel import AXIS, TrainState, make_update, pmapped


def make_optimizer(train: Training) -> optax.GradientTransformation:
    """Adam with clipped gradients, linear warm-up and cosine decay to zero."""
    schedule = optax.warmup_cosine_decay_schedule(
        0.0 if train.warmup_steps else train.learning_rate, train.learning_rate,
        train.warmup_steps, train.steps)
    return optax.chain(optax.clip_by_global_norm(train.clip_norm), optax.adam(schedule))


def initial_state(method: Method, optimizer: optax.GradientTransformation, train: Training,
                  rng: Array, batch: Any) -> TrainState:
    """The state before the first update."""
    # It runs once, and on CPU optimizing the random numbers would take longer than all else.
    fast = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    params = jax.jit(method.init, compiler_options=fast)(rng, batch)
    return TrainState(step=jnp.zeros((), jnp.int32), params=params,
                      opt_state=optimizer.init(params), ema=params if train.ema_decay else {})


def train(config: ConfigDict, workdir: str | Path) -> dict[str, float]:
    """Train what `config` describes, from the start or from the workdir's latest checkpoint.

    Writes `config.json`, `run.json` (versions and devices), `metrics.jsonl`, `checkpoints/` and,
    for a data set of several subjects, `split.json`.
    A resumed run ends with the same weights, bit for bit, as one that was never stopped. No other
    training can use the workdir meanwhile. SIGTERM makes it save where it is and leave.

    Of several processes, joined by `jax.distributed`, each calls this, makes its share of every
    batch and computes on its own devices; the first alone writes. They end with the weights that
    one process with as many devices ends with.

    Args:
        config: from `flatjax.config.experiment`.
        workdir: folder of the run.

    Returns:
        the last validation's metrics.

    Raises:
        InputError: for a config that cannot run, or a workdir that holds another run; `BusyError`
            if another training has it.
        TrainingError: if loss or gradient is not finite; the last checkpoint stays.
        StorageError: if something cannot be written; the last checkpoint stays.
        Terminated: after SIGTERM.
    """
    devices = jax.local_device_count()
    options = configuration.make_training(config, jax.device_count())
    method = configuration.make_method(config)
    acquisition = configuration.make_acquisition(config)
    configuration.make_evaluation(config)
    dataset = configuration.make_dataset(config)
    if not dataset.validation:
        raise InputError("the data set has no validation volumes, expected at least one: best "
                         "checkpoints are chosen by them")
    rows = share(options.batch_size)
    with (writable(workdir) as workdir, locked(workdir / ".lock", f"the workdir {workdir}"),
          closing(Checkpoints(workdir, options.best_metric, options.keep_best,
                              create=True)) as checkpoints):
        claim(workdir, config)
        dataset = restore_split(dataset, config.data, workdir)
        write_split(dataset, config.data, workdir)

        def make_batch(step: int) -> Any:
            return training_batch(dataset, acquisition, config.seed, step, options.batch_size,
                                  rows)

        key_init, key_train, key_validate = jax.random.split(jax.random.key(config.seed), 3)
        optimizer = make_optimizer(options)
        state = initial_state(method, optimizer, options, key_init, make_batch(0))
        if checkpoints.latest() is not None:
            step, state = checkpoints.load("latest", state)
            print(f"resuming {workdir} at step {step}")
        elif config.init_from and is_first():
            state = start_from(config.init_from, state)
        state = broadcast_from_first(state)
        update = pmapped(make_update(method, optimizer, ema_decay=options.ema_decay,
                                     axis_name=AXIS))
        validate = make_validation(method, config, dataset, acquisition, key_validate)

        def explain(step: int, after: TrainState) -> str:
            return explain_nonfinite(method, after.params, key_train, make_batch(step - 1))

        return run_steps(state, update, validate, make_batch, explain, key_train, options, devices,
                         checkpoints, workdir)


def make_validation(method: Method, config: ConfigDict, dataset: DataSet,
                    acquisition: Acquisition, rng: Array) -> Callable[..., dict[str, float]]:
    """`(params, check) -> {psnr, ssim, nmse}`, means over the validation volumes.

    `check` is called before each volume and may raise.
    """
    score = scorer(method, config.combine)

    def validate(params: Any, check: Callable[[], None] = lambda: None) -> dict[str, float]:
        scores = []
        for volume in dataset.validation:
            check()
            scored = score_volume(score, params, rng, volume.name,
                                  measure_volume(volume, acquisition),
                                  config.evaluation.batch_size)
            scores.append(quality(prediction=scored.reconstruction,
                                  target=scored.target))
        return {key: float(np.mean([one[key] for one in scores])) for key in scores[0]}

    return validate


def start_from(source: str, state: TrainState) -> TrainState:
    """`state` with the weights of another run's best checkpoint.

    Raises:
        InputError: if there is none, or its weights have other shapes.
    """
    metric = load_config(source).train.best_metric
    with closing(Checkpoints(Path(source), metric)) as other:
        step, saved = other.load("best")
    weights = saved["ema"] or saved["params"]
    check_params(weights, state.params, source)
    weights = jax.tree.map(jnp.asarray, weights)
    print(f"starting from step {step} of {source}")
    return state._replace(params=weights, ema=weights if state.ema else {})


def explain_nonfinite(method: Method, params: Any, rng: Array, batch: Batch) -> str:
    """Which samples of a batch give a loss or gradient that is not finite.

    Args:
        method: that is trained.
        params: its weights at that step.
        rng: a key; where a loss draws random numbers, they are others than in training.
        batch: as it was trained on, `[batch, ...]`.
    """
    names = {"measured k-space": batch.measurement.kspace, "coil maps": batch.measurement.maps,
             "k-space": batch.kspace, "target": batch.target}
    found = []
    for index in range(len(batch.target)):
        broken = [name for name, array in names.items() if not np.isfinite(array[index]).all()]
        if broken:
            found.append(f"sample {index} has values that are not finite in its "
                         f"{' and '.join(broken)}")
    if found:
        return "; ".join(found)
    gradient = jax.jit(jax.value_and_grad(method.loss, has_aux=True))
    alone = jax.tree.map(lambda x: x[:, None], batch)
    for index in range(len(batch.target)):
        (loss, _), grads = gradient(params, rng, jax.tree.map(itemgetter(index), alone))
        if not np.isfinite([float(loss), float(optax.tree.norm(grads))]).all():
            found.append(str(index))
    if not found:
        return "its data are finite, and so is every sample's own loss"
    return f"its data are finite, but not the loss or gradient of sample {', '.join(found)}"
