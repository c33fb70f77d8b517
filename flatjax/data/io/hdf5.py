"""Safe reading of HDF5 files that may be damaged or hostile.

libhdf5 trusts the lengths that a file declares: a damaged file can make it read forever, allocate
gigabytes or corrupt its memory. So text and data of variable length are read in a process of their
own (`isolated`), which may crash. Arrays of numbers are compared with the size of the file
(`check_stored`) and read in this process.
"""

import atexit
import mmap
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import h5py

from flatjax.data.io.checks import check_file
from flatjax.errors import InputError

try:
    import resource
except ImportError:  # on Windows: see `isolated`
    resource: Any = None

P = ParamSpec("P")
Result = TypeVar("Result")

GREATEST_RATIO = 1032  # of what deflate can expand to what is stored
_DAMAGED = (OSError, KeyError, ValueError, TypeError, IndexError, RuntimeError, MemoryError)
_MEMORY = 1 << 30  # bytes that a call may take in its process, and so many times the file's size:
_FILE_SHARE = 16
_SECONDS = 60.0  # that it may take, and one more for each so many bytes of the file:
_SLOWEST = 1 << 20
_LEAKED = 1 << 28  # bytes that damaged files may leave taken before the process is replaced
_IDLE = 60.0  # seconds without a call until the process ends
_SERVE = "import sys; from flatjax.data.io.hdf5 import serve; serve(int(sys.argv[1]))"


@contextmanager
def open_hdf5(file: Path) -> Iterator[h5py.File]:
    """An HDF5 file to read from; every error of it becomes an `InputError`."""
    check_file(file)
    try:
        with h5py.File(file, "r") as content:
            yield content
    except InputError:
        raise
    except _DAMAGED as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{file}: is not an HDF5 file or is cut short or damaged ({reason}); "
                         "download it again") from error


def check_stored(file: Path, dataset: h5py.Dataset) -> None:
    """Refuse an HDF5 dataset that lies in another file, or declares more than this one can hold.

    Raises:
        InputError: naming it, before memory is taken for it.
    """
    if dataset.external or dataset.is_virtual or dataset.file.filename != str(file):
        raise InputError(f"{file}: {dataset.name} lies in another file, expected it in this one; "
                         "copy it there, for instance with h5repack")
    stored = dataset.id.get_storage_size() * (GREATEST_RATIO if dataset.chunks else 1)
    declared = dataset.size * dataset.id.get_type().get_size()
    if declared > min(stored, file.stat().st_size * GREATEST_RATIO):
        raise InputError(f"{file}: {dataset.name} of shape {dataset.shape} and {dataset.dtype} "
                         f"takes {declared} bytes, more than the file can hold; it is cut short or "
                         "damaged: download it again")


def isolated(function: Callable[Concatenate[Path, P], Result], file: Path,
             *args: P.args, **kwargs: P.kwargs) -> Result:
    """`function(file, *args, **kwargs)`, in another process.

    The first call starts that process, which then serves the others, one at a time, and ends after
    a minute without any. A call has a minute and a second for every MiB of the file; on Linux it
    has 1 GiB of memory and 16 times the size of the file. Where the system has no limits for a
    process, on Windows, there is no other process: the call is made here, without protection.

    Args:
        function: of a module; what it takes and returns must be picklable.
        file: that it reads.

    Raises:
        InputError: the process died of the file, or did not come to an end.
        Exception: what the function raises.
    """
    global _helper
    if resource is None:
        return function(file, *args, **kwargs)
    with _lock:
        while True:
            new = _helper is None or not _helper.mine()
            helper = _helper = _helper if _helper and not new else _Helper()
            try:
                result, error = helper.call(function, file, args, kwargs)
                break
            except TimeoutError as ended:
                helper.process.kill()
                stop()
                raise InputError(f"{file}: {ended}; it is damaged, or on a disk that is too slow: "
                                 "copy or download it again") from ended
            except (EOFError, OSError) as ended:
                stop()
                if new:  # an older one may have ended because it was idle, or by another file
                    raise InputError(f"{file}: the HDF5 library crashed on it; it is damaged: "
                                     "download it again") from ended
            except BaseException:  # or the next call would receive its answer
                helper.process.kill()
                stop()
                raise
    if error:
        raise error
    return result


class _Helper:
    """The process that calls are made in."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self.connection, theirs = Pipe()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", _SERVE, str(theirs.fileno())],
                pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL, start_new_session=True,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "JAX_PLATFORMS": "cpu"})
        try:
            self.connection.recv()
        except EOFError as error:
            raise RuntimeError(f"the process that reads HDF5 files did not start: {sys.executable} "
                               f"ended with {self.process.wait()}") from error

    def mine(self) -> bool:
        """Whether this process started it, and not one that it is a fork of."""
        return self.owner == os.getpid()

    def call(self, function: Callable[..., Any], file: Path, *arguments: Any
             ) -> tuple[Any, Exception | None]:
        self.connection.send((function, file, *arguments))
        seconds = _seconds(file)
        if not self.connection.poll(seconds):
            raise TimeoutError(f"the HDF5 library came to no end in {seconds:.0f} s")
        return self.connection.recv()

    def end(self) -> None:
        self.connection.close()
        if self.mine():
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


_helper: _Helper | None = None
_lock = threading.RLock()


@atexit.register
def stop() -> None:
    """End the process of `isolated`; its next call starts another."""
    global _helper
    with _lock:
        if _helper:
            _helper.end()
        _helper = None


def serve(descriptor: int) -> None:
    """Answer the calls of `isolated` that come over this connection, until it is closed."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    begin = _address_space()
    with Connection(descriptor) as connection:
        connection.send(None)
        while _address_space() <= begin + _LEAKED and connection.poll(_IDLE):
            try:
                function, file, args, kwargs = connection.recv()
            except EOFError:
                return
            _limit_memory(begin, file)
            signal.setitimer(signal.ITIMER_REAL, 2 * _seconds(file))  # if nobody is left to kill it
            try:
                answer = function(file, *args, **kwargs), None
            except Exception as error:
                answer = None, error
            signal.setitimer(signal.ITIMER_REAL, 0)
            connection.send(answer)
            del answer


def _seconds(file: Path) -> float:
    return _SECONDS + _size(file) / _SLOWEST


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _address_space() -> int:
    """Bytes that this process has, or 0 where the system does not tell."""
    if sys.platform != "linux":
        return 0
    return int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE


def _limit_memory(begin: int, file: Path) -> None:
    if begin:
        most = begin + _MEMORY + _FILE_SHARE * _size(file)
        hardest = resource.getrlimit(resource.RLIMIT_AS)[1]
        if hardest != resource.RLIM_INFINITY:
            most = min(most, hardest)
        resource.setrlimit(resource.RLIMIT_AS, (most, hardest))
