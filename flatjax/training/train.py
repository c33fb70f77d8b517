"""Training: from a config and a workdir to checkpoints, resumable at any of them."""

from collections import Counter
from collections.abc import Callable
from contextlib import closing
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
from flatjax.evaluation import heldout
from flatjax.evaluation.scoring import quality, score_volume, scorer
from flatjax.files import locked
from flatjax.methods import Method, check_method, check_split, self_supervised, tracing
from flatjax.mri import Batch
from flatjax.runs.checkpoint import Checkpoints
from flatjax.runs.hosts import broadcast_from_first, is_first, share, writable
from flatjax.runs.workdir import claim, load_config, load_params
from flatjax.training.loop import run_steps, tell
from flatjax.training.parallel import AXIS, TrainState, make_update, pmapped, shard


def describe(method: str, params: Any) -> str:
    """What is trained, as one line: method, number of parameters, devices."""
    parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
    devices = Counter(device.device_kind for device in jax.devices())
    return (f"{method} with {parameters:,} parameters, on "
            + ", ".join(f"{count} x {kind}" for kind, count in devices.items()))


def make_optimizer(train: Training) -> optax.GradientTransformation:
    """Adam with clipped gradients, linear warm-up and cosine decay to zero."""
    warmup = min(train.warmup_steps, train.steps // 5)
    schedule = optax.warmup_cosine_decay_schedule(
        0.0 if warmup else train.learning_rate, train.learning_rate, warmup, train.steps)
    return optax.chain(optax.clip_by_global_norm(train.clip_norm), optax.adam(schedule))


def initial_state(method: Method, optimizer: optax.GradientTransformation, train: Training,
                  rng: Array, batch: Any) -> TrainState:
    """The state before the first update."""
    # It runs once, and on CPU optimizing the random numbers takes ten times as long as all else.
    fast = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    params = jax.jit(method.init, compiler_options=fast)(rng, batch)
    return TrainState(step=jnp.zeros((), jnp.int32), params=params,
                      opt_state=optimizer.init(params), ema=params if train.ema_decay else {})


def train(config: ConfigDict, workdir: str | Path) -> dict[str, float]:
    """Train what `config` describes, from the start or from the workdir's latest checkpoint.

    Writes `config.json`, `run.json` (versions and devices), `metrics.jsonl`, `checkpoints/` and,
    for a data set of several subjects, `split.json`. A resumed run ends with the same bits as one
    that was never stopped; one of more `train.steps` follows their learning rate from there on.
    No other training can use the workdir meanwhile. SIGTERM or Ctrl-C makes it save where it is
    and leave.

    Of several processes, joined by `jax.distributed`, each calls this and makes its share of every
    batch; the first alone writes. The weights are those of one process with as many devices.

    Returns the last validation's metrics.

    Raises:
        InputError: for a config that cannot run, a method that does not keep to its contract, or a
            workdir that holds another run; `BusyError` if another training has it.
        TrainingError: if loss or gradient is not finite; the last checkpoint stays.
        StorageError: if something cannot be written; the last checkpoint stays.
        Terminated: after SIGTERM or Ctrl-C.
    """
    options = configuration.make_training(config, jax.device_count())
    method = configuration.make_method(config)
    if options.supervision == "self":
        method = self_supervised(method, share=options.split_share, splits=options.splits,
                                 density=options.split_density)
    acquisition = configuration.make_acquisition(config)
    configuration.make_evaluation(config)
    dataset = configuration.make_dataset(config)
    if not dataset.validation:
        raise InputError("the data set has no validation volumes, expected at least one: best "
                         "checkpoints are chosen by them")
    rows = share(options.batch_size)
    with (writable(workdir) as workdir, locked(workdir / ".lock", f"the workdir {workdir}"),
          closing(Checkpoints(workdir, configuration.best_metric(options), options.keep_best,
                              create=True)) as checkpoints):
        claim(workdir, config)
        dataset = restore_split(dataset, config.data, workdir)
        write_split(dataset, config.data, workdir)

        def make_batch(step: int) -> Batch:
            return training_batch(dataset, acquisition, config.seed, step, options.batch_size,
                                  rows)

        def sharded(step: int) -> Batch:
            return shard(make_batch(step), jax.local_device_count(), options.accumulate)

        def explain(step: int, after: TrainState) -> str:
            return explain_nonfinite(method, after.params, key_train, make_batch(step - 1))

        key_init, key_train, key_validate = jax.random.split(jax.random.key(config.seed), 3)
        optimizer = make_optimizer(options)
        first = make_batch(0)
        if options.supervision == "self":
            check_split(first.measurement, options.split_share)
        elif np.isnan(first.target).all():
            raise InputError("no slice of the first batch has a reference, expected full k-space; "
                             "train without by train.supervision=self")
        check_method(method, first)
        state = initial_state(method, optimizer, options, key_init, first)
        tell(f"training {describe(config.method.name, state.params)}")
        if checkpoints.steps():
            step, state = checkpoints.load("latest", state)
            tell(f"resuming {workdir} at step {step}")
        elif config.init_from and is_first():
            state = start_from(config.init_from, state, method)
        update = pmapped(make_update(method, optimizer, ema_decay=options.ema_decay,
                                     axis_name=AXIS))
        validate = make_validation(method, config, dataset, acquisition, key_validate)
        take = tracing(method, "loss")(lambda state, batch: update(state, key_train, batch))
        return run_steps(broadcast_from_first(state), take, validate, sharded, explain, options,
                         checkpoints, workdir)


def make_validation(method: Method, config: ConfigDict, dataset: DataSet,
                    acquisition: Acquisition, rng: Array) -> Callable[..., dict[str, float]]:
    """`(params, check) -> {psnr, ssim, nmse}`, means over the validation volumes.

    With self-supervision it gives the `heldout_error` alone: no reference takes part in a choice.
    `check` is called before each volume and may raise.
    """
    score, size = scorer(method, config.combine), config.evaluation.batch_size
    held = heldout.scorer(method)

    def validate(params: Any, check: Callable[[], None]) -> dict[str, float]:
        scores = []
        for volume in dataset.validation:
            check()
            slices = measure_volume(volume, acquisition)
            if config.train.supervision == "self":
                scores.append({"heldout_error": held(params, rng, volume.name, slices, size)})
                continue
            scored = score_volume(score, params, rng, volume.name, slices, size)
            scores.append(quality(prediction=scored.reconstruction, target=scored.target))
        return {key: float(np.mean([one[key] for one in scores])) for key in scores[0]}

    return validate


def start_from(source: str, state: TrainState, method: Method) -> TrainState:
    """`state` with the weights of another run's best checkpoint.

    An `InputError` if there is none, or its weights have other shapes.
    """
    config = load_config(source)
    config.evaluation.checkpoint = "best"
    weights, step = load_params(source, config, method)
    tell(f"starting from step {step} of {source}")
    weights = jax.tree.map(jnp.asarray, weights)
    return state._replace(params=weights, ema=weights if state.ema else {})


def explain_nonfinite(method: Method, params: Any, rng: Array, batch: Batch) -> str:
    """Which samples of a batch give a loss or gradient that is not finite.

    Where a loss draws random numbers, they are others than in training.
    """
    names = {"measured k-space": batch.measurement.kspace, "coil maps": batch.measurement.maps,
             "k-space": batch.kspace, "target": batch.target}
    samples = range(len(batch.target))
    broken = {index: [name for name, array in names.items() if not np.isfinite(array[index]).all()]
              for index in samples}
    if any(broken.values()):
        return "; ".join(f"sample {index} has values that are not finite in its "
                         f"{' and '.join(found)}" for index, found in broken.items() if found)
    gradient = jax.jit(jax.value_and_grad(method.loss, has_aux=True))
    found = []
    for index in samples:
        one = jax.tree.map(lambda x, index=index: x[index:index + 1], batch)
        (loss, _), grads = gradient(params, rng, one)
        if not np.isfinite([float(loss), float(optax.tree.norm(grads))]).all():
            found.append(str(index))
    if not found:
        return "its data are finite, and so is every sample's own loss"
    return f"its data are finite, but not the loss or gradient of sample {', '.join(found)}"
