"""Checkpoints of a run: the latest, to resume from, and the best, to evaluate."""

import json
import math
import shutil
import zlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from flatjax.errors import InputError, TrainingError
from flatjax.files import cannot_write
from flatjax.methods import Method, Params
from flatjax.mri import Batch, Measurement
from flatjax.runs.hosts import is_first

State = Any

_CHECKSUM = "crc32"  # beside the metrics of each checkpoint
_RETRIES = 5  # of a reader whose checkpoints a training deletes
# Of several processes the first alone reads and writes.
_ALONE = ocp.options.MultiprocessingOptions(primary_host=0, active_processes={0})
_READER = ocp.Checkpointer(ocp.StandardCheckpointHandler(), multiprocessing_options=_ALONE)


def expected_params(method: Method) -> Params:
    """The shapes and types of a method's weights, `jax.ShapeDtypeStruct`s; nothing is computed."""
    kspace = jnp.zeros((1, 1, 32, 32), jnp.complex64)  # weights fit images of every size
    magnitude = jnp.zeros((1, 32, 32))
    batch = Batch(Measurement(kspace, magnitude[None], kspace), kspace, magnitude)
    return jax.eval_shape(method.init, jax.random.key(0), batch)


def check_params(params: Params, expected: Params, source: str) -> None:
    """Refuse weights of another model.

    Args:
        params: pytree of arrays.
        expected: the same of arrays, or of `expected_params`.
        source: where `params` come from, for the message.

    Raises:
        InputError: naming the first weight that is missing, surplus or of another shape.
    """
    found, wanted = ({jax.tree_util.keystr(path, simple=True, separator="/"): jnp.shape(leaf)
                      for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
                     for tree in (params, expected))
    for name in sorted(found.keys() | wanted.keys()):
        if found.get(name) != wanted.get(name):
            here, there = (shapes.get(name, "absent") for shapes in (found, wanted))
            raise InputError(f"the weights in {source} are of another model than this config's: "
                             f"{name} is {here}, expected {there}; take the same method and "
                             "network as the run's")


class Checkpoints:
    """The checkpoints below `workdir/checkpoints`: the last two and the best.

    Each save is whole or absent: a killed one leaves only a temporary folder, which the next
    training removes. With each goes a checksum of its arrays, so that one that was damaged later,
    as a power cut may do, is found out when it is read, and the next one is taken.
    """

    def __init__(self, workdir: Path, metric: str, keep_best: int = 1, *,
                 create: bool = False) -> None:
        """Open them.

        Args:
            workdir: of the run.
            metric: name of the validation metric, higher being better, that tells the best.
            keep_best: how many of the best are kept, beside the last two.
            create: make the folder if it is missing, and write to it; otherwise nothing in it is
                touched.
        """
        self.folder = Path(workdir).absolute() / "checkpoints"
        self._metric, self._keep_best, self._writes = metric, keep_best, create
        self._manager = None

    def steps(self) -> list[int]:
        """The steps saved, rising. Whether each is whole shows when it is read."""
        try:
            return sorted(int(entry.name) for entry in self.folder.iterdir()
                          if entry.name.isdecimal() and entry.is_dir())
        except OSError:
            return []

    def latest(self) -> int | None:
        """The latest step saved, or None."""
        return max(self.steps(), default=None)

    def find(self, which: str) -> int:
        """The step that `which` names: "best", "latest" or a number.

        Raises:
            InputError: if there is no such checkpoint.
        """
        return self._candidates(which)[0]

    def _candidates(self, which: str) -> list[int]:
        """The step that `which` names, and those to take in its place, best first."""
        steps = self.steps()
        if not steps:
            raise InputError(f"no checkpoint in {self.folder}; train first, or name the workdir "
                             "of a run that has one")
        if which == "best":
            return sorted(steps, key=lambda step: (self._value(self._metrics(step)), step),
                          reverse=True)
        if which == "latest":
            return steps[::-1]
        if not (which.isascii() and which.isdecimal()) or int(which) not in steps:
            raise InputError(f"checkpoint is {which!r}, expected best, latest or one of the steps "
                             f"{', '.join(map(str, steps))} in {self.folder}")
        return [int(which)]

    def load(self, which: str, like: State | None = None) -> tuple[int, State]:
        """The state that `which` names, or where it is damaged the next best or latest.

        A line says which were left out. A training sets them aside, to write them anew, but only
        once it has found another: where none can be read, for another model or a file system that
        fails, all stay as they are. What it deletes while another process reads is looked for
        again.

        Args:
            which: "best", "latest" or a number, which nothing replaces.
            like: the shape of the state, or None to take it as it was saved.

        Returns:
            `(step, state)`.

        Raises:
            InputError: if none can be read.
        """
        reason, skipped = None, set()
        for _ in range(_RETRIES):
            for step in self._candidates(which):
                if step in skipped:
                    continue
                try:
                    state = self.restore(step, like)
                except InputError as error:
                    if not (self.folder / str(step)).is_dir():
                        break  # the training that we read from has deleted it: look again
                    reason = error
                    print(f"skipping a checkpoint: {error}")
                    skipped.add(step)
                    continue
                if self._writes and skipped:
                    self._set_aside(skipped)
                return step, state
            else:
                break
        raise reason or InputError(f"no checkpoint in {self.folder} stays long enough to be read; "
                                   "wait for the training that writes it")

    def save(self, step: int, state: State, metrics: dict[str, float] | None) -> None:
        """Write the state of a step, in the background.

        Args:
            step: its number.
            state: pytree of arrays.
            metrics: of the validation, or None without one: such a state is never the best.

        Raises:
            TrainingError: if it was not taken.
            StorageError: if it, or the one before, cannot be written.
        """
        if not is_first():
            return
        state = jax.device_get(state)  # arrays of one of several processes cannot be saved as such
        try:
            self._manager = self._manager or self._open()
            taken = self._manager.save(
                step, metrics=(metrics or {}) | {_CHECKSUM: checksum(state)},
                args=ocp.args.Composite(state=ocp.args.StandardSave(state)))
        except Exception as error:
            raise cannot_write(self.folder / str(step), error) from error
        if not taken:
            raise TrainingError(f"the checkpoint of step {step} was not saved: {self.folder} "
                                "already holds one of that step or later")

    def restore(self, step: int, like: State | None = None) -> State:
        """The state of a step, shaped like `like`, or as it was saved.

        Raises:
            InputError: if it cannot be read, is not what was saved or is of another shape.
        """
        like = None if like is None else jax.device_get(like)
        try:
            state = _READER.restore(self.folder / str(step) / "state",
                                    args=ocp.args.StandardRestore(like))
        except Exception as error:  # what orbax and tensorstore raise is of every type
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise InputError(f"cannot restore step {step} from {self.folder}: {reason}; the "
                             "checkpoint is broken or of another model: take another, or train in "
                             "another workdir") from error
        metrics, found = self._metrics(step), checksum(state)
        if metrics is None or metrics.get(_CHECKSUM, found) != found:
            raise InputError(f"cannot restore step {step} from {self.folder}: its checksum is "
                             "not that of its arrays; the checkpoint is broken")
        return state

    def close(self) -> None:
        """Wait for what is being written.

        Raises:
            StorageError: if it cannot be.
        """
        if self._manager:
            try:
                self._manager.close()
            except Exception as error:
                raise cannot_write(self.folder, error) from error

    def _metrics(self, step: int) -> dict[str, float] | None:
        """What was saved with a step's state, or None if it is damaged."""
        try:
            found = json.loads((self.folder / str(step) / "metrics" / "metrics").read_text())
        except (OSError, ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None

    def _value(self, metrics: dict[str, float] | None) -> float:
        value = (metrics or {}).get(self._metric)
        return value if isinstance(value, int | float) and math.isfinite(value) else -math.inf

    def _open(self) -> ocp.CheckpointManager:
        """A manager to write with. What killed trainings left half done is removed."""
        if not self._writes:
            raise ValueError("checkpoints were opened for reading")
        self.folder.mkdir(parents=True, exist_ok=True)
        for entry in self.folder.glob("*.orbax-checkpoint-tmp*"):
            shutil.rmtree(entry, ignore_errors=True)
        damaged = {step for step in self.steps() if self._metrics(step) is None}
        if damaged:
            self._set_aside(damaged)
        keep = checkpoint_managers.AnyPreservationPolicy([
            checkpoint_managers.LatestN(2),
            checkpoint_managers.BestN(get_metric_fn=self._value, n=self._keep_best)])
        return ocp.CheckpointManager(self.folder, options=ocp.CheckpointManagerOptions(
            preservation_policy=keep, best_fn=self._value, create=False,
            multiprocessing_options=_ALONE))

    def _set_aside(self, steps: set[int]) -> None:
        """Rename damaged checkpoints, so that their steps can be written anew; earlier ones go."""
        for entry in self.folder.glob("broken-*"):
            shutil.rmtree(entry, ignore_errors=True)
        try:
            for step in steps:
                (self.folder / str(step)).rename(self.folder / f"broken-{step}")
        except OSError as error:
            raise cannot_write(self.folder, error) from error


def checksum(state: State) -> int:
    """CRC-32 of all arrays of a pytree, their types and shapes, in the order of their paths."""
    leaves = sorted((jax.tree_util.keystr(path, simple=True, separator="/"), np.asarray(leaf))
                    for path, leaf in jax.tree_util.tree_leaves_with_path(jax.device_get(state)))
    value = 0
    for name, leaf in leaves:
        value = zlib.crc32(f"{name} {leaf.dtype} {leaf.shape}".encode(), value)
        value = zlib.crc32(np.ascontiguousarray(leaf).view(np.uint8).data, value)
    return value
