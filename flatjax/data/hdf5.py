"""HDF5 files of others: what libhdf5 should not be trusted with.

It takes lengths from a file at their word: by those of a damaged one it reads for ever, takes
gigabytes, or frees memory that is not its own. So text and rows of variable length are read in a
process of its own (`isolated`), that may die of them; arrays of numbers are held against the file
(`check_stored`) and read here.
"""

import atexit
import mmap
import os
import resource
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

from flatjax.errors import InputError

P = ParamSpec("P")
Result = TypeVar("Result")

_HEAP = b"GCOL\x01\0\0\0"  # how global heaps begin
_GREATEST_RATIO = 1032  # of what HDF5's compression can expand to what is stored
_DAMAGED = (OSError, KeyError, ValueError, TypeError, IndexError, RuntimeError, MemoryError)
_MEMORY = 1 << 30  # bytes that a call may take in its process, and so many times the file's size:
_FILE_SHARE = 16
_LEAKED = 1 << 28  # bytes that damaged files may leave taken before the process is replaced
_IDLE = 60.0  # seconds until the process without calls ends
_SERVE = "import sys; from flatjax.data.hdf5 import serve; serve(int(sys.argv[1]))"


@contextmanager
def opened(file: Path) -> Iterator[h5py.File]:
    """An HDF5 file to read from; whatever is wrong with it becomes an `InputError`."""
    try:
        with open(file, "rb"):
            pass
    except OSError as error:
        raise InputError(f"{file}: cannot be opened ({error.strerror}); check that it is a file "
                         "that you may read") from error
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
    stored = dataset.id.get_storage_size() * (_GREATEST_RATIO if dataset.chunks else 1)
    declared = dataset.size * dataset.id.get_type().get_size()
    if declared > min(stored, file.stat().st_size * _GREATEST_RATIO):
        raise InputError(f"{file}: {dataset.name} of shape {dataset.shape} and {dataset.dtype} "
                         f"takes {declared} bytes, more than the file can hold; it is cut short or "
                         "damaged: download it again")


def check_heaps(file: Path, content: h5py.Group) -> None:
    """Refuse an HDF5 file with a heap of strings that has no end: libhdf5 2.0 reads it for ever.

    All of the file is searched for them but the datasets of `content` that lie in one piece.

    Raises:
        InputError: naming the file.
    """
    whole = [one.id for one in content.values() if isinstance(one, h5py.Dataset)]
    pieces = sorted((one.get_offset(), one.get_offset() + one.get_storage_size())
                    for one in whole if one.get_offset() is not None)
    with open(file, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as all_:
        begin = 0
        for start, stop in [*pieces, (len(all_), len(all_))]:
            while begin < start and (at := all_.find(_HEAP, begin, start)) >= 0:
                if not _ends(all_, at):
                    raise InputError(f"{file}: its heap of strings at byte {at} has no end; it is "
                                     "damaged: download it again")
                begin = at + 8
            begin = max(begin, stop)


def _ends(content: mmap.mmap, at: int) -> bool:
    """Whether the objects of a heap follow each other to its end, as libhdf5 takes them."""
    size = int.from_bytes(content[at + 8:at + 16], "little")
    begin, end = at + 16, min(at + size, len(content))
    while begin + 16 <= end:
        index = int.from_bytes(content[begin:begin + 2], "little")
        length = int.from_bytes(content[begin + 8:begin + 16], "little")
        step = 16 + -(-length // 8) * 8 if index else length  # what is free counts its own header
        if step < 16 or begin + step > at + size:
            return False
        begin += step
    return True


def isolated(function: Callable[Concatenate[Path, P], Result], file: Path,
             *args: P.args, **kwargs: P.kwargs) -> Result:
    """`function(file, *args, **kwargs)`, in another process.

    The first call starts that process, which then serves the others, one at a time, and ends after
    a minute without any. On Linux it has 1 GiB of memory, and 16 times the size of the file.

    Args:
        function: of a module; what it takes and returns must be picklable.
        file: that it reads.

    Raises:
        InputError: the process died of the file.
        Exception: what the function raises.
    """
    global _helper
    with _lock:
        while True:
            new = _helper is None or not _helper.mine()
            helper = _helper = _helper if _helper and not new else _Helper()
            try:
                result, error = helper.call(function, file, args, kwargs)
                break
            except (EOFError, OSError) as ended:
                stop()
                if new:  # an older one may have ended for want of calls, or of another file
                    raise InputError(f"{file}: the HDF5 library crashed on it; it is damaged: "
                                     "download it again") from ended
            except BaseException:  # its answer would be taken for that of the next call
                helper.process.kill()
                stop()
                raise
    if error:
        raise error
    return result


class _Helper:
    """The process that calls are made in."""

    def __init__(self):
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

    def call(self, *request: Any) -> tuple[Any, Exception | None]:
        self.connection.send(request)
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
    begin = _address_space()
    with Connection(descriptor) as connection:
        connection.send(None)
        while _address_space() <= begin + _LEAKED and connection.poll(_IDLE):
            try:
                function, file, args, kwargs = connection.recv()
            except EOFError:
                return
            _limit_memory(begin, file)
            try:
                answer = function(file, *args, **kwargs), None
            except Exception as error:
                answer = None, error
            connection.send(answer)
            del answer


def _address_space() -> int:
    """Bytes that this process has, or 0 where the system does not tell."""
    if sys.platform != "linux":
        return 0
    return int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE


def _limit_memory(begin: int, file: Path) -> None:
    if begin:
        size = os.stat(file).st_size if os.path.exists(file) else 0
        most = begin + _MEMORY + _FILE_SHARE * size
        hardest = resource.getrlimit(resource.RLIMIT_AS)[1]
        if hardest != resource.RLIM_INFINITY:
            most = min(most, hardest)
        resource.setrlimit(resource.RLIMIT_AS, (most, hardest))
