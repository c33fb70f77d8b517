"""Training: from a config and a workdir to checkpoints, resumable at any of them."""

import json
import math
import platform
import sys
import time
from collections.abc import Callable
from contextlib import closing
from importlib.metadata import version
from operator import itemgetter
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from ml_collections import ConfigDict
from tqdm import tqdm

from flatjax import config as configuration
from flatjax.config import Training
from flatjax.data import Acquisition, DataSet, training_batch
from flatjax.data.batches import measure_volume, prefetch
from flatjax.data.subjects import settle_split, write_split
from flatjax.errors import InputError, TrainingError
from flatjax.evaluation.evaluate import load_config
from flatjax.evaluation.scoring import quality, score_volume, scorer
from flatjax.files import MetricsLog, locked, write_json, write_text
from flatjax.methods import Method
from flatjax.mri import Batch
from flatjax.runs.checkpoint import Checkpoints, check_params
from flatjax.runs.hosts import is_first, of_first, share, writable
from flatjax.training.interruption import Terminated, on_sigterm
from flatjax.training.parallel import AXIS, TrainState, make_update, pmapped, shard, skipped

_PACKAGES = ("flatjax", "jax", "flax", "optax", "orbax-checkpoint", "numpy")


def make_optimizer(train: Training) -> optax.GradientTransformation:
    """Adam with clipped gradients, linear warm-up and cosine decay to zero."""
    schedule = optax.warmup_cosine_decay_schedule(
        0.0 if train.warmup_steps else train.learning_rate, train.learning_rate,
        train.warmup_steps, train.steps)
    return optax.chain(optax.clip_by_global_norm(train.clip_norm), optax.adam(schedule))


def initial_state(method: Method, optimizer: optax.GradientTransformation, train: Training,
                  rng: Array, batch: Any) -> TrainState:
    """The state before the first update."""
    # It runs once, and on CPU optimising the random numbers would take longer than all else.
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
        InputError: for a config that cannot run, or a workdir that holds another run; `Busy` if
            another training has it.
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
        dataset = settle_split(dataset, config.data, workdir)
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
        state = of_first(state)
        update = pmapped(make_update(method, optimizer, ema_decay=options.ema_decay,
                                     axis_name=AXIS))
        validate = make_validation(method, config, dataset, acquisition, key_validate)

        def explain(step: int, after: TrainState) -> str:
            return explain_nonfinite(method, after.params, key_train, make_batch(step - 1))

        return _loop(state, update, validate, make_batch, explain, key_train, options, devices,
                     checkpoints, workdir)


def _loop(state: TrainState, update: Callable, validate: Callable, make_batch: Callable,
          explain: Callable, rng: Array, options: Training, devices: int, checkpoints: Checkpoints,
          workdir: Path) -> dict[str, float]:
    first = saved = int(state.step)
    scores = None
    batches = prefetch(lambda step: shard(make_batch(step), devices, options.accumulate),
                       range(first, options.steps), workers=options.workers)
    with (closing(batches), closing(MetricsLog(workdir, first, options.tensorboard)) as log,
          closing(_Progress(first, options, log, explain)) as progress, on_sigterm() as check):
        try:
            for step, batch in enumerate(batches, start=first + 1):
                check()
                after, metrics = update(state, rng, batch)
                progress.add(step, after, metrics)
                if step % options.validate_every == 0 or step == options.steps:
                    progress.settle()
                    scores = validate(after.evaluated, check)
                    progress.show(step, scores)
                    checkpoints.save(step, after, scores)
                    saved = step
                state = after
        except Terminated as error:
            if jax.process_count() > 1:  # they are not at the same step
                raise
            done = int(state.step)  # a validation that was broken off is made when resumed
            progress.settle()
            if done > saved:
                checkpoints.save(done, state, None)
            raise Terminated(f"{error}; saved at step {done}: the same command goes on from "
                             "there") from error
    return scores or validate(state.evaluated)


class _Progress:
    """The bar, the log and the guard: reads a step's metrics while the next one runs."""

    def __init__(self, first: int, options: Training, log: MetricsLog,
                 explain: Callable[[int, TrainState], str]):
        self._bar = tqdm(total=options.steps, initial=first, unit="step", desc="train",
                         mininterval=0.5 if sys.stderr.isatty() else 15, disable=not is_first())
        self._options, self._log, self._explain = options, log, explain
        self._pending: tuple[int, TrainState, dict[str, Array]] | None = None
        self._since = (first, time.perf_counter())
        self._postfix: dict[str, str] = {}

    def add(self, step: int, state: TrainState, metrics: dict[str, Array]) -> None:
        """Take a step that was dispatched, with the state after it; settle the one before."""
        self.settle()
        self._pending = step, state, metrics

    def settle(self) -> None:
        """Wait for the pending step and record it.

        Raises:
            TrainingError: if a metric is not finite, and as many batches as may be were skipped.
        """
        if self._pending is None:
            return
        step, state, metrics = self._pending
        self._pending = None
        metrics = {key: float(value) for key, value in jax.device_get(metrics).items()}
        broken = [key for key, value in metrics.items() if not math.isfinite(value)]
        if broken:
            what = f"step {step}: {', '.join(broken)} not finite; {self._explain(step, state)}"
            count, most = skipped(state), self._options.skip_nonfinite
            if count > most:
                raise TrainingError(
                    f"{what}; the last checkpoint is kept: mend the data, lower "
                    "train.learning_rate or train.clip_norm, or leave such batches out by "
                    f"train.skip_nonfinite, now {most}")
            tqdm.write(f"{what}; left out, {count} of at most {most}")
        self._postfix["loss"] = f"{metrics['loss']:.4f}"
        self._bar.set_postfix(self._postfix, refresh=False)
        self._bar.update()
        if step % self._options.log_every == 0 or step == self._options.steps:
            before, then = self._since
            now = time.perf_counter()
            self._since = step, now
            rate = (step - before) * self._options.batch_size / (now - then)
            self._log.write("train", step, metrics | {"slices_per_second": rate})

    def show(self, step: int, scores: dict[str, float]) -> None:
        """Record a validation."""
        self._postfix |= {"val_psnr": f"{scores['psnr']:.2f}", "val_ssim": f"{scores['ssim']:.4f}"}
        self._log.write("validation", step, scores)
        self._since = step, time.perf_counter()

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()


def make_validation(method: Method, config: ConfigDict, dataset: DataSet,
                    acquisition: Acquisition, rng: Array) -> Callable[..., dict[str, float]]:
    """`(params, check) -> {psnr, ssim, nmse}`, means over the validation volumes.

    `check` is called before each volume and may raise.
    """
    score = scorer(method, config.method.combine)

    def validate(params: Any, check: Callable[[], None] = lambda: None) -> dict[str, float]:
        scores = []
        for volume in dataset.validation:
            check()
            scored = score_volume(score, params, rng, volume.name,
                                  measure_volume(volume, acquisition),
                                  config.evaluation.batch_size)
            scores.append(quality(scored.target, scored.reconstruction))
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


# Changing these between two starts of a run changes nothing about its result.
_NEUTRAL = (("train", "log_every"), ("train", "skip_nonfinite"), ("train", "tensorboard"),
            ("train", "workers"), ("evaluation", "checkpoint"), ("evaluation", "figures"))


def check_owner(workdir: Path, config: ConfigDict) -> None:
    """Refuse a workdir that holds checkpoints of another config.

    Raises:
        InputError: naming what differs.
    """
    saved = workdir / "config.json"
    if saved.is_file() and any(workdir.glob("checkpoints/[0-9]*")):
        old = json.loads(configuration.to_json(load_config(workdir)))
        new = json.loads(configuration.to_json(config))
        for section, key in _NEUTRAL:
            del old[section][key], new[section][key]
        differing = _differences(old, new)
        if differing:
            raise InputError(
                f"{workdir} holds checkpoints of another config ({'; '.join(differing)}); name "
                "another workdir, or start from its weights with --config.init_from")


def claim(workdir: Path, config: ConfigDict) -> None:
    """Write into the workdir whose it is: the config, and versions and devices.

    Raises:
        InputError: as `check_owner`.
    """
    check_owner(workdir, config)
    write_text(workdir / "config.json", configuration.to_json(config))
    write_json(workdir / "run.json", {
        "python": platform.python_version(), "seed": config.seed,
        "packages": {name: version(name) for name in _PACKAGES},
        "processes": jax.process_count(),
        "devices": [f"{d.platform} {d.device_kind}" for d in jax.devices()],
    })


def _differences(old: dict, new: dict, prefix: str = "") -> list[str]:
    found = []
    for key in sorted(set(old) | set(new)):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += _differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append(f"{prefix}{key}: {a!r} there, {b!r} here")
    return found
