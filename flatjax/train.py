"""Training: from a config and a workdir to checkpoints, resumable at any of them."""

import json
import math
import platform
import sys
import time
from collections.abc import Callable
from contextlib import closing
from importlib.metadata import version
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
from flatjax.checkpoint import Checkpoints
from flatjax.config import Training
from flatjax.data import Acquisition, DataSet, training_batch
from flatjax.data.batches import prefetch
from flatjax.errors import InputError, TrainingError
from flatjax.files import MetricsLog, make_folder, write_json, write_text
from flatjax.methods import Method
from flatjax.parallel import AXIS, TrainState, make_update, pmapped, shard
from flatjax.scoring import quality, score_volume, scorer

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

    Writes `config.json`, `run.json` (versions and devices), `metrics.jsonl` and `checkpoints/`.
    A resumed run ends with the same weights, bit for bit, as one that was never stopped.

    Args:
        config: from `flatjax.config.experiment`.
        workdir: folder of the run.

    Returns:
        the last validation's metrics.

    Raises:
        InputError: for a config that cannot run, or a workdir that holds another run.
        TrainingError: if loss or gradient is not finite; the last checkpoint stays.
    """
    devices = jax.local_device_count()
    options = configuration.make_training(config, devices)
    method = configuration.make_method(config)
    acquisition = configuration.make_acquisition(config)
    configuration.make_evaluation(config)
    dataset = configuration.make_dataset(config)
    if not dataset.validation:
        raise InputError("the data set has no validation volumes, expected at least one: best "
                         "checkpoints are chosen by them")
    workdir = make_folder(workdir)
    claim(workdir, config)

    def make_batch(step: int) -> Any:
        return training_batch(dataset, acquisition, config.seed, step, options.batch_size)

    key_init, key_train, key_validate = jax.random.split(jax.random.key(config.seed), 3)
    optimizer = make_optimizer(options)
    state = initial_state(method, optimizer, options, key_init, make_batch(0))
    with closing(Checkpoints(workdir, options.best_metric, options.keep_best,
                             create=True)) as checkpoints:
        latest = checkpoints.latest()
        if latest is not None:
            state = checkpoints.restore(latest, state)
            print(f"resuming {workdir} at step {latest}")
        elif config.init_from:
            state = start_from(config.init_from, state)
        update = pmapped(make_update(method, optimizer, ema_decay=options.ema_decay,
                                     axis_name=AXIS))
        validate = make_validation(method, config, dataset, acquisition, key_validate)
        return _loop(state, update, validate, make_batch, key_train, options, devices,
                     checkpoints, workdir)


def _loop(state: TrainState, update: Callable, validate: Callable, make_batch: Callable,
          rng: Array, options: Training, devices: int, checkpoints: Checkpoints,
          workdir: Path) -> dict[str, float]:
    first = int(state.step)
    scores = None
    batches = prefetch(lambda step: shard(make_batch(step), devices, options.accumulate),
                       range(first, options.steps), workers=options.workers)
    with (closing(batches), closing(MetricsLog(workdir, first, options.tensorboard)) as log,
          closing(_Progress(first, options, log)) as progress):
        for step, batch in enumerate(batches, start=first + 1):
            state, metrics = update(state, rng, batch)
            progress.add(step, metrics)
            if step % options.validate_every == 0 or step == options.steps:
                progress.settle()
                scores = validate(state.evaluated)
                progress.show(step, scores)
                checkpoints.save(step, state, scores)
    return scores or validate(state.evaluated)


class _Progress:
    """The bar, the log and the guard: reads a step's metrics while the next one runs."""

    def __init__(self, first: int, options: Training, log: MetricsLog):
        self._bar = tqdm(total=options.steps, initial=first, unit="step", desc="train",
                         mininterval=0.5 if sys.stderr.isatty() else 15)
        self._options, self._log = options, log
        self._pending: tuple[int, dict[str, Array]] | None = None
        self._since = (first, time.perf_counter())
        self._postfix: dict[str, str] = {}

    def add(self, step: int, metrics: dict[str, Array]) -> None:
        """Take a step that was dispatched; settle the one before."""
        self.settle()
        self._pending = step, metrics

    def settle(self) -> None:
        """Wait for the pending step and record it.

        Raises:
            TrainingError: if a metric is not finite.
        """
        if self._pending is None:
            return
        step, metrics = self._pending
        self._pending = None
        metrics = {key: float(value) for key, value in jax.device_get(metrics).items()}
        broken = [key for key, value in metrics.items() if not math.isfinite(value)]
        if broken:
            raise TrainingError(
                f"step {step}: {', '.join(broken)} not finite; the last checkpoint is kept: lower "
                "train.learning_rate or train.clip_norm, or look at the data of that step")
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
                    acquisition: Acquisition, rng: Array) -> Callable[[Any], dict[str, float]]:
    """`params -> {psnr, ssim, nmse}`, means over the validation volumes."""
    score = scorer(method, config.method.combine)

    def validate(params: Any) -> dict[str, float]:
        scores = []
        for volume in dataset.validation:
            scored = score_volume(score, params, rng, volume, acquisition,
                                  config.evaluation.batch_size)
            scores.append(quality(scored.target, scored.reconstruction))
        return {key: float(np.mean([one[key] for one in scores])) for key in scores[0]}

    return validate


def start_from(source: str, state: TrainState) -> TrainState:
    """`state` with the weights of another run's best checkpoint.

    Raises:
        InputError: if there is none, or its weights have other shapes.
    """
    with closing(Checkpoints(Path(source), "psnr")) as other:
        step = other.find("best")
        saved = other.restore(step)
    weights = saved["ema"] or saved["params"]
    expected, found = (jax.tree_util.tree_map(jnp.shape, tree)
                       for tree in (state.params, weights))
    if expected != found:
        raise InputError(f"init_from: the weights in {source} are of another model than this "
                         "config's; start from a run with the same method and network")
    weights = jax.tree.map(jnp.asarray, weights)
    print(f"starting from step {step} of {source}")
    return state._replace(params=weights, ema=weights if state.ema else {})


# Changing these between two starts of a run changes nothing about its result.
_NEUTRAL = (("train", "log_every"), ("train", "tensorboard"), ("train", "workers"),
            ("evaluation", "checkpoint"), ("evaluation", "figures"))


def claim(workdir: Path, config: ConfigDict) -> None:
    """Write the config into the workdir, unless it holds checkpoints of another one.

    Raises:
        InputError: naming what differs.
    """
    saved = workdir / "config.json"
    if saved.is_file() and any(workdir.glob("checkpoints/[0-9]*")):
        old = json.loads(configuration.to_json(configuration.from_json(saved.read_text())))
        new = json.loads(configuration.to_json(config))
        for section, key in _NEUTRAL:
            old[section].pop(key), new[section].pop(key)
        differing = _differences(old, new)
        if differing:
            raise InputError(
                f"{workdir} holds checkpoints of another config ({'; '.join(differing)}); name "
                "another workdir, or start from its weights with --config.init_from")
    write_text(saved, configuration.to_json(config))
    write_json(workdir / "run.json", {
        "python": platform.python_version(), "seed": config.seed,
        "packages": {name: version(name) for name in _PACKAGES},
        "devices": [f"{d.platform} {d.device_kind}" for d in jax.local_devices()],
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
