"""Writing results: whole files or none, locks, and a log that survives interruptions."""

import errno
import json
import math
import os
import socket
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from flatjax.errors import BusyError, InputError, StorageError

try:
    import fcntl
except ImportError:  # on Windows: see `locked`
    fcntl = None


def make_folder(path: str | Path) -> Path:
    """The folder, made if missing; an `InputError` if it cannot be written to."""
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"cannot write to the folder {folder}: {error.strerror or error}; name "
                         "one that you may write to") from error
    return folder


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold a lock that no two processes can hold at once: the file `path`, which stays.

    The kernel releases the lock when the process ends, however it ends. Where the file system or
    the operating system has no locks, a line says so and nothing is locked. A `BusyError` if
    another process holds it, an `InputError` if the file cannot be opened; `what` is locked, for
    these messages.
    """
    try:
        file = path.open("a+")
    except OSError as error:
        raise InputError(f"cannot lock {what}: {path} cannot be opened ({error.strerror})"
                         ) from error
    with file:
        try:
            if fcntl is None:
                raise OSError("the system has no locks")
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read(200).strip() or "another process"
            raise BusyError(f"{what} is in use by {holder}; wait for it or stop it, or name "
                            "another folder") from error
        except OSError:
            print(f"{what}: its file system has no locks; start no second process on it")
        else:
            with suppress(OSError):  # on a full disk the lock holds, but does not name its holder
                os.ftruncate(file.fileno(), 0)
                os.write(file.fileno(), f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write(temporary)` make a file, and put it in place when it is complete and on disk.

    Several processes may write one file: the last one to finish wins. A `StorageError` if it
    cannot be written, for a full disk or missing permissions.
    """
    temporary = path.parent / f".{path.stem}.{uuid.uuid4().hex}.partial{path.suffix}"
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write(temporary)
            _sync(temporary)
            temporary.replace(path)
            if os.name != "nt":  # Windows opens no folders
                _sync(path.parent)
    finally:
        with suppress(OSError):  # the folder is gone or read-only: the error above says more
            temporary.unlink(missing_ok=True)


@contextmanager
def writing(path: Path, errors: type[Exception] = OSError) -> Iterator[None]:
    """Within it an error of these types becomes a `StorageError`: `path` cannot be written."""
    try:
        yield
    except errors as error:
        lines = str(error).splitlines() or [type(error).__name__]
        reason = getattr(error, "strerror", None) or lines[0]
        raised = StorageError(f"cannot write {path}: {reason}; what was written before is intact: "
                              "free space or mend the permissions, then repeat the command")
        raised.strerror = reason
        raise raised from error


def _sync(path: Path) -> None:
    """Flush a file or folder to the disk."""
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)  # as Windows needs it
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system on which folders cannot be synchronized
            raise
    finally:
        os.close(handle)


def printable(text: str) -> str:
    r"""Text with `\udcff` and the like for bytes of file names that are no UTF-8."""
    return text.encode(errors="backslashreplace").decode()


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all; what cannot be encoded is written as `printable`."""
    write_atomically(path, lambda temporary: temporary.write_text(text, errors="backslashreplace"))


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
    """Metrics by step as JSON lines in `metrics.jsonl`, and as TensorBoard events by option.

    What cannot be written raises a `StorageError`.
    """

    def __init__(self, workdir: Path, step: int, tensorboard: bool = False) -> None:
        """Open the log, dropping lines of steps after `step`, which will be done again."""
        self._path = Path(workdir) / "metrics.jsonl"
        if self._path.is_file():
            kept = [line for line in self._path.read_text(errors="replace").splitlines()
                    if (found := _step_of(line)) is not None and found <= step]
            write_text(self._path, "".join(line + "\n" for line in kept))
        with writing(self._path):
            self._file = self._path.open("a", buffering=1)
        self._board = None
        if tensorboard:
            try:
                from tensorboardX import SummaryWriter
            except ImportError as error:
                raise InputError("train.tensorboard needs the package tensorboardX; install "
                                 "flatjax[tensorboard] or set it to False") from error
            self._board = SummaryWriter(str(Path(workdir) / "tensorboard"), purge_step=step + 1)

    def write(self, kind: str, step: int, values: dict[str, float]) -> None:
        """Append a line of strict JSON with kind, step and values, null for what is not finite."""
        line = json.dumps(_finite({"kind": kind, "step": step, **values}), allow_nan=False)
        with writing(self._path):
            self._file.write(line + "\n")
        if self._board:
            for key, value in values.items():
                self._board.add_scalar(f"{kind}/{key}", value, step)

    def close(self) -> None:
        """Flush and close."""
        with writing(self._path):
            self._file.close()
        if self._board:
            self._board.close()


def _step_of(line: str) -> int | None:
    try:
        step = json.loads(line)["step"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None  # the incomplete line of a killed run
    return step if isinstance(step, int) else None
