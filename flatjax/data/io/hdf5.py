"""Safe reading of HDF5 files that may be damaged or hostile.

libhdf5 trusts the lengths that a file declares: a damaged file can make it read forever, allocate
gigabytes or corrupt its memory. So text and data of variable length are read in a process of their
own (`isolated`), which may crash. Arrays of numbers are compared with the size of the file
(`stored_dataset`) and read in this process.
"""

import atexit
import mmap
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import h5py

from flatjax.errors import InputError

try:
    import resource
except ImportError:  # on Windows: see `isolated`
    resource: Any = None

GREATEST_RATIO = 1032  # of what deflate can expand to what is stored
_MEMORY = 1 << 30  # bytes that a call may take in its process, and so many times the file's size:
_FILE_SHARE = 16
_SECONDS = 60.0  # that it may take, and one more for each so many bytes of the file:
_SLOWEST = 1 << 20
_LEAKED = 1 << 28  # bytes that damaged files may leave taken before the process is replaced
_IDLE = 60.0  # seconds without a call until the process ends
_SERVE = "import sys; from flatjax.data.io.hdf5 import serve; serve(int(sys.argv[1]))"


def stored_dataset(content: h5py.File, name: str) -> h5py.Dataset:
    """A dataset that may be read: it lies in this file, and declares no more than that can hold."""
    dataset = content.get(name)
    if not isinstance(dataset, h5py.Dataset):
        raise InputError(f"has no dataset {name}, only {', '.join(sorted(map(str, content))[:8])}; "
                         "it is another kind of HDF5 file, or damaged")
    if dataset.external or dataset.is_virtual or dataset.file.filename != content.filename:
        raise InputError(f"{name} lies in another file, expected it in this one; copy it there, "
                         "for instance with h5repack")
    stored = dataset.id.get_storage_size() * (GREATEST_RATIO if dataset.chunks else 1)
    declared = dataset.size * dataset.id.get_type().get_size()
    if declared > min(stored, content.id.get_filesize() * GREATEST_RATIO):
        raise InputError(f"{name} of shape {dataset.shape} and {dataset.dtype} takes {declared} "
                         "bytes, more than the file can hold; it is damaged: download it again")
    return dataset


# What calls are made in, and how to reach it, by who started it: a fork of that starts its own.
_helpers: dict[int, tuple[subprocess.Popen, Connection]] = {}
_lock = threading.RLock()


def isolated(function: Callable[..., Any], file: Path, *args: Any, **kwargs: Any) -> Any:
    """`function(file, *args, **kwargs)`, in another process, which may die of the file.

    The first call starts that process, which then serves the others, one at a time, and ends after
    a minute without any. A call has a minute and a second for every MiB of the file; on Linux it
    has 1 GiB of memory and 16 times the size of the file. Where the system has no limits for a
    process, on Windows, there is no other process: the call is made here, without protection.

    Args:
        function: of a module; what it takes, returns and raises must be picklable.
        file: that it reads. No message names it; `checks.reading` does.

    Raises:
        InputError: the process crashed, or took too long; and what the function raises.
    """
    if resource is None:
        return function(file, *args, **kwargs)
    seconds, me = _SECONDS + _size(file) / _SLOWEST, os.getpid()
    with _lock:
        new = me not in _helpers
        process, connection = _helpers[me] = _helpers.get(me) or _start()
        try:
            connection.send((seconds, function, file, args, kwargs))
            result, error = connection.recv()
        except BaseException as ended:  # or the next call would receive this one's answer
            process.kill()
            stop()
            if not isinstance(ended, EOFError | OSError):
                raise
            if process.returncode == -signal.SIGALRM:
                raise InputError(f"the HDF5 library came to no end in {seconds:.0f} s; it is "
                                 "damaged, or on a disk that is too slow: copy or download it "
                                 "again") from ended
            if not new:  # it may have ended because it was idle, or by another file
                return isolated(function, file, *args, **kwargs)
            raise InputError("the HDF5 library crashed on it; it is damaged: download it "
                             "again") from ended
    if error:
        raise error
    return result


def _start() -> tuple[subprocess.Popen, Connection]:
    ours, theirs = Pipe()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", _SERVE, str(theirs.fileno())],
            pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "JAX_PLATFORMS": "cpu"})
    try:
        ours.recv()
    except EOFError as error:
        raise RuntimeError(f"the process that reads HDF5 files did not start: {sys.executable} "
                           f"ended with {process.wait()}") from error
    return process, ours


@atexit.register
def stop() -> None:
    """End the process of `isolated`; its next call starts another."""
    with _lock:
        if helper := _helpers.pop(os.getpid(), None):
            process, connection = helper
            connection.close()
            process.wait()


def serve(descriptor: int) -> None:
    """Answer the calls of `isolated` that come over this connection, until it is closed."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process, whatever it is doing
    begin = _address_space()
    hardest = resource.getrlimit(resource.RLIMIT_AS)[1]
    with Connection(descriptor) as connection:
        connection.send(None)
        while _address_space() <= begin + _LEAKED and connection.poll(_IDLE):
            try:
                seconds, function, file, args, kwargs = connection.recv()
            except EOFError:
                break
            if begin:
                most = begin + _MEMORY + _FILE_SHARE * _size(file)
                with suppress(ValueError):  # where less is the most that may be allowed
                    resource.setrlimit(resource.RLIMIT_AS, (most, hardest))
            signal.setitimer(signal.ITIMER_REAL, seconds)
            try:
                answer = function(file, *args, **kwargs), None
            except Exception as error:
                answer = None, error
            signal.setitimer(signal.ITIMER_REAL, 0)
            connection.send(answer)
            del answer
    signal.setitimer(signal.ITIMER_REAL, 10)  # a damaged file may keep libhdf5 from ending


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _address_space() -> int:
    """Bytes that this process has, or 0 where the system does not tell."""
    if sys.platform != "linux":
        return 0
    return int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE
