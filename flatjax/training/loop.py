"""The loop over the steps of a training: its bar, its log, its checkpoints and its guard."""

import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import jax
from jax import Array
from tqdm import tqdm

from flatjax.config import Training
from flatjax.data.batches import prefetch
from flatjax.errors import Terminated, TrainingError
from flatjax.files import MetricsLog
from flatjax.runs.checkpoint import Checkpoints
from flatjax.runs.hosts import is_first
from flatjax.training.parallel import TrainState, skipped


def run_steps(state: TrainState, update: Callable, validate: Callable, make_batch: Callable,
              explain: Callable, options: Training, checkpoints: Checkpoints,
              workdir: Path) -> dict[str, float]:
    """Train from `state` to the last step, validating and saving on the way.

    Args:
        state: that is trained on.
        update: `(state, batch) -> (state, metrics)`.
        validate: see `train.make_validation`. The last one's metrics are returned.
        make_batch: `step -> batch`, as `update` takes it.
        explain: `(step, state)` -> why its loss is not finite.
        options: of the training.
        checkpoints, workdir: of the run.
    """
    first = saved = int(state.step)
    scores = None
    batches = prefetch(make_batch, range(first, options.steps), workers=options.workers)
    with (closing(batches), closing(MetricsLog(workdir, first, options.tensorboard)) as log,
          closing(_Progress(first, options, log, explain)) as progress, _stoppable() as check):
        tell("compiling the first step" if first < options.steps else
             f"step {first} was the last; --config.train.steps=MORE goes on from there")
        try:
            for step, batch in enumerate(batches, start=first + 1):
                check()
                after, metrics = update(state, batch)
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
            what = f"saved at step {done}: the same command goes on from there" if done else (
                "no step was done and nothing is saved")
            raise Terminated(f"{error}; {what}", error.status) from error
        scores = scores or validate(state.evaluated, check)
    found = (f"PSNR {scores['psnr']:.2f} dB, SSIM {scores['ssim']:.4f}" if "psnr" in scores else
             f"held-out error {scores['heldout_error']:.4f}")
    tell(f"step {options.steps}: validation {found}")
    return scores


def tell(line: str) -> None:
    """Print a line above the bar, in the first process alone."""
    if is_first():
        with tqdm.external_write_mode():
            print(line, flush=True)


@contextmanager
def _stoppable() -> Iterator[Callable[[], None]]:
    """Within it SIGTERM and Ctrl-C make the function that it gives raise `Terminated`, no more.

    Only a second Ctrl-C interrupts at once.
    """
    asked: list[signal.Signals] = []

    def stop(number: int, _: Any) -> None:
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.append(signal.Signals(number))
        if number == signal.SIGINT:
            os.write(2, b"\nstopping after this step; Ctrl-C again stops without saving\n")

    def check() -> None:
        if asked:
            raise Terminated(f"asked to stop by {asked[0].name}", 128 + asked[0])

    if threading.current_thread() is not threading.main_thread():  # to which signals belong
        yield check
        return
    before = {one: signal.signal(one, stop) for one in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield check
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


class _Progress:
    """The bar, the log and the guard: reads a step's metrics while the next one runs."""

    def __init__(self, first: int, options: Training, log: MetricsLog,
                 explain: Callable[[int, TrainState], str]) -> None:
        self._bar = tqdm(total=options.steps, initial=first, unit="step", desc="train",
                         mininterval=0.5 if sys.stderr.isatty() else 15, disable=not is_first())
        self._options, self._log, self._explain = options, log, explain
        self._pending: tuple[int, TrainState, dict[str, Array]] | None = None
        self._first, self._since = first, (first, time.perf_counter())
        self._postfix: dict[str, str] = {}
        self.close = self._bar.close

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
            tell(f"{what}; left out, {count} of at most {most}")
        self._postfix["loss"] = f"{metrics['loss']:.4f}"
        self._bar.set_postfix(self._postfix, refresh=False)
        self._bar.update()
        if step == self._first + 1:
            tell(f"first step done after {time.perf_counter() - self._since[1]:.1f} s, with its "
                 "compilation")
        if step % self._options.log_every == 0 or step == self._options.steps:
            before, then = self._since
            now = time.perf_counter()
            self._since = step, now
            rate = (step - before) * self._options.batch_size / (now - then)
            self._log.write("train", step, metrics | {"slices_per_second": rate})

    def show(self, step: int, scores: dict[str, float]) -> None:
        """Record a validation."""
        self._postfix |= {f"val_{key}": f"{value:.4g}" for key, value in scores.items()}
        self._bar.set_postfix(self._postfix, refresh=False)
        self._log.write("validation", step, scores)
        self._since = step, time.perf_counter()
