"""Writing results: whole files or none, and a log that survives interruptions."""

import json
import math
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flatjax.errors import InputError


def make_folder(path: str | Path) -> Path:
    """The folder, made if missing and shown to be writable.

    Raises:
        InputError: if it cannot be.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"cannot write to the folder {folder}: {error.strerror or error}; name "
                         "one that you may write to") from error
    return folder


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write(temporary)` make a file and put it in place only when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    write_atomically(path, lambda temporary: temporary.write_text(text) and None)


def write_json(path: Path, value: Any) -> None:
    """Write strict JSON, whole or not at all; numbers that are not finite become null."""
    write_text(path, json.dumps(_finite(value), indent=2, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class MetricsLog:
    """Metrics by step as JSON lines in `metrics.jsonl`, and as TensorBoard events by option."""

    def __init__(self, workdir: Path, step: int, tensorboard: bool = False):
        """Open the log, dropping lines of steps after `step`, which will be done again."""
        path = Path(workdir) / "metrics.jsonl"
        if path.is_file():
            kept = [line for line in path.read_text().splitlines()
                    if _step_of(line) is not None and _step_of(line) <= step]
            write_text(path, "".join(line + "\n" for line in kept))
        self._file = path.open("a", buffering=1)
        self._board = None
        if tensorboard:
            try:
                from tensorboardX import SummaryWriter
            except ImportError as error:
                raise InputError("train.tensorboard needs the package tensorboardX; install "
                                 "flatjax[tensorboard] or set it to False") from error
            self._board = SummaryWriter(str(Path(workdir) / "tensorboard"), purge_step=step + 1)

    def write(self, kind: str, step: int, values: dict[str, float]) -> None:
        """Append a line `{"kind", "step", **values}`."""
        self._file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
        if self._board:
            for key, value in values.items():
                self._board.add_scalar(f"{kind}/{key}", value, step)

    def close(self) -> None:
        """Flush and close."""
        self._file.close()
        if self._board:
            self._board.close()


def _step_of(line: str) -> int | None:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return None  # the half line of a killed run
