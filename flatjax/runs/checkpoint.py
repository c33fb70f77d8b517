"""Checkpoints of a run: the latest, to resume from, and the best, to evaluate."""

import json
import math
import shutil
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from flatjax.errors import InputError, TrainingError
from flatjax.files import printable, writing
from flatjax.runs.hosts import is_first
from flatjax.runs.weights import named

State = Any

_CHECKSUM = "crc32"  # beside the metrics of each checkpoint
# Of several processes the first alone reads and writes.
_ALONE = ocp.options.MultiprocessingOptions(primary_host=0, active_processes={0})
_READER = ocp.Checkpointer(ocp.StandardCheckpointHandler(), multiprocessing_options=_ALONE)


class Checkpoints:
    """The checkpoints below `workdir/checkpoints`: the last two and the best.

    Each save is whole or absent: a killed one leaves only a temporary folder, which the next
    training removes. With each goes a checksum of its arrays, so that one that was damaged later,
    as a power cut may do, is found out when it is read, and the next one is taken.
    """

    def __init__(self, workdir: Path, metric: str, keep_best: int = 1, *,
                 create: bool = False) -> None:
        """Those of a workdir, to write (`create`), and to close then, or only to read.

        The best have the highest `metric` of the validation, or the lowest if it is an error;
        `keep_best` of them are kept.
        """
        self.folder = Path(workdir).absolute() / "checkpoints"
        self._metric, self._keep_best, self._writes = metric, keep_best, create
        self._manager = None
        if (path := printable(str(self.folder))) != str(self.folder):
            raise InputError(f"the path {path} has bytes that are no UTF-8, expected text: Orbax "
                             "keeps no checkpoint there; rename the folder")

    def steps(self) -> list[int]:
        """The steps saved, rising. Whether each is whole shows when it is read."""
        try:
            return sorted(int(entry.name) for entry in self.folder.iterdir()
                          if entry.name.isdecimal() and entry.is_dir())
        except OSError:
            return []

    def find(self, which: str) -> list[int]:
        """The step that `which` names, "best", "latest" or a number, and what may replace it.

        An `InputError` if there is no such checkpoint.
        """
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
        """The step and state that `which` names, or where it is damaged the next best or latest.

        A line says which were left out. A training sets them aside, to write them anew, but only
        once it has found another: where none can be read, for another model or a file system that
        fails, all stay as they are, and an `InputError` is raised. `like` is as in `restore`.
        """
        damaged: dict[int, InputError] = {}
        while steps := [step for step in self.find(which) if step not in damaged]:
            try:
                state = self.restore(steps[0], like)
            except InputError as error:
                if (self.folder / str(steps[0])).is_dir():  # else a training has deleted it since
                    print(f"skipping a checkpoint: {error}")
                    damaged[steps[0]] = error
            else:
                if self._writes:
                    self._set_aside(damaged)
                return steps[0], state
        raise list(damaged.values())[-1]

    def save(self, step: int, state: State, metrics: dict[str, float] | None) -> None:
        """Write the state of a step, a pytree of arrays, in the background.

        Without `metrics` of a validation it is never the best. A `TrainingError` if it was not
        taken, a `StorageError` if it, or the one before, cannot be written.
        """
        if not is_first():
            return
        state = jax.device_get(state)  # arrays of one of several processes cannot be saved as such
        with writing(self.folder / str(step), Exception):
            self._manager = self._manager or self._open()
            taken = self._manager.save(
                step, metrics=(metrics or {}) | {_CHECKSUM: checksum(state)},
                args=ocp.args.Composite(state=ocp.args.StandardSave(state)))
        if not taken:
            raise TrainingError(f"the checkpoint of step {step} was not saved: {self.folder} "
                                "already holds one of that step or later")

    def restore(self, step: int, like: State | None = None) -> State:
        """The state of a step, shaped like `like`, or as it was saved.

        An `InputError` if it cannot be read, is not what was saved or is of another shape.
        """
        try:
            state = _READER.restore(self.folder / str(step) / "state",
                                    args=ocp.args.StandardRestore(jax.device_get(like)))
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
        """Wait for what is being written; a `StorageError` if it cannot be."""
        if self._manager:
            with writing(self.folder, Exception):
                self._manager.close()

    def _metrics(self, step: int) -> dict[str, float] | None:
        """What was saved with a step's state, or None if it is damaged."""
        try:
            found = json.loads((self.folder / str(step) / "metrics" / "metrics").read_text())
        except (OSError, ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None

    def _value(self, metrics: dict[str, float] | None) -> float:
        value = (metrics or {}).get(self._metric)
        if not (isinstance(value, int | float) and math.isfinite(value)):
            return -math.inf
        return -value if self._metric.endswith("error") else value

    def _open(self) -> ocp.CheckpointManager:
        """A manager to write with. What killed trainings left half done is removed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._set_aside([step for step in self.steps() if self._metrics(step) is None])
        keep = checkpoint_managers.AnyPreservationPolicy([
            checkpoint_managers.LatestN(2),
            checkpoint_managers.BestN(get_metric_fn=self._value, n=self._keep_best)])
        return ocp.CheckpointManager(self.folder, options=ocp.CheckpointManagerOptions(
            preservation_policy=keep, best_fn=self._value, create=False,
            cleanup_tmp_directories=True, multiprocessing_options=_ALONE))

    def _set_aside(self, damaged: Iterable[int]) -> None:
        """Rename checkpoints, so that their steps can be written anew."""
        with writing(self.folder):
            for step in damaged:
                shutil.rmtree(self.folder / f"broken-{step}", ignore_errors=True)
                (self.folder / str(step)).rename(self.folder / f"broken-{step}")


def checksum(state: State) -> int:
    """CRC-32 of all arrays of a pytree, their types and shapes, in the order of their paths."""
    value = 0
    for name, leaf in sorted(named(state).items()):
        array = np.asarray(leaf)
        value = zlib.crc32(f"{name} {array.dtype} {array.shape}".encode(), value)
        value = zlib.crc32(np.ascontiguousarray(array).view(np.uint8).data, value)
    return value
