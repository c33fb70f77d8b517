"""Checkpoints of a run: the latest, to resume from, and the best, to evaluate."""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from flatjax.errors import InputError, TrainingError

State = Any


class Checkpoints:
    """The checkpoints below `workdir/checkpoints`.

    Each save is whole or absent: a killed one leaves only a temporary folder that is ignored.
    """

    def __init__(self, workdir: Path, metric: str, keep_best: int = 1, *, create: bool = False):
        """Open them.

        Args:
            workdir: of the run.
            metric: name of the validation metric, higher being better, that tells the best.
            keep_best: how many of the best are kept, beside the latest.
            create: make the folder if it is missing.
        """
        self.folder = Path(workdir).absolute() / "checkpoints"
        self._manager = None
        if not create and not self.folder.is_dir():
            return

        def value(metrics: dict[str, float]) -> float:
            return metrics[metric]

        keep = checkpoint_managers.AnyPreservationPolicy([
            checkpoint_managers.LatestN(1),
            checkpoint_managers.BestN(get_metric_fn=value, n=keep_best)])
        self._manager = ocp.CheckpointManager(self.folder, options=ocp.CheckpointManagerOptions(
            preservation_policy=keep, best_fn=value, create=create))

    def latest(self) -> int | None:
        """The latest step saved, or None."""
        return self._manager.latest_step() if self._manager else None

    def find(self, which: str) -> int:
        """The step that `which` names: "best", "latest" or a number.

        Raises:
            InputError: if there is no such checkpoint.
        """
        steps = sorted(self._manager.all_steps()) if self._manager else []
        if not steps:
            raise InputError(f"no checkpoint in {self.folder}; train first, or name the workdir "
                             "of a run that has one")
        if which == "best":
            return self._manager.best_step()
        if which == "latest":
            return steps[-1]
        if not which.isdecimal() or int(which) not in steps:
            raise InputError(f"checkpoint is {which!r}, expected best, latest or one of the steps "
                             f"{', '.join(map(str, steps))} in {self.folder}")
        return int(which)

    def save(self, step: int, state: State, metrics: dict[str, float]) -> None:
        """Write the state of a step, in the background.

        Raises:
            TrainingError: if it was not taken.
        """
        if not self._manager.save(step, metrics=metrics, args=ocp.args.Composite(
                state=ocp.args.StandardSave(state))):
            raise TrainingError(f"the checkpoint of step {step} was not saved: {self.folder} "
                                "already holds one of that step or later")

    def restore(self, step: int, like: State | None = None) -> State:
        """The state of a step, shaped like `like`, or as it was saved.

        Raises:
            InputError: if it cannot be read or is of another shape.
        """
        abstract = None if like is None else jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        try:
            return self._manager.restore(step, args=ocp.args.Composite(
                state=ocp.args.StandardRestore(abstract))).state
        except (ValueError, KeyError, TypeError, OSError) as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(f"cannot restore step {step} from {self.folder}: {reason}; the "
                             "checkpoint is broken or of another model") from error

    def close(self) -> None:
        """Wait for what is being written."""
        if self._manager:
            self._manager.close()
