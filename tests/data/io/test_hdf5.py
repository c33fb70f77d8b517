"""What reads HDF5 files in another process, and what it does when that dies."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from flatjax.data.io import hdf5
from flatjax.errors import InputError

# What is called there. It is started with this process's sys.path, so it finds them.

def process_of(file):
    return os.getpid()


def array_of(file, *shape, fill=0.0):
    return np.full(shape, fill)


def crash(file):
    os.abort()


def crash_once(file):
    if not file.exists():
        file.touch()
        os.abort()
    return "read"


def take(file, size):
    return np.empty(size, np.uint8).size  # which does not touch it


def leak(file, kept=[]):  # noqa: B006
    kept.append(np.empty(300 << 20, np.uint8))
    return os.getpid()


def refuse(file):
    raise InputError(f"{file}: not this one")


def wait(file):
    time.sleep(60)


def spin(file):
    re.match(r"(a|a)+$", 60 * "a" + "b")  # in C, for ever, as libhdf5 would


def gone(process):
    deadline = time.time() + 20
    while Path(f"/proc/{process}/exe").exists() and time.time() < deadline:
        time.sleep(0.1)
    return not Path(f"/proc/{process}/exe").exists()


def test_calls_are_made_in_one_other_process_and_give_what_they_return(tmp_path):
    first = hdf5.isolated(process_of, tmp_path)
    assert first == hdf5.isolated(process_of, tmp_path) != os.getpid()
    made = hdf5.isolated(array_of, tmp_path, 300, 500, fill=2.0)
    assert made.shape == (300, 500) and (made == 2).all()
    with pytest.raises(InputError, match="not this one"):
        hdf5.isolated(refuse, tmp_path)
    assert hdf5.isolated(process_of, tmp_path) == first


def test_a_crash_is_one_line_and_the_next_call_is_served(tmp_path, capfd):
    for _ in range(2):  # by a process that has served, and by a new one
        with pytest.raises(InputError, match="the HDF5 library crashed on it"):
            hdf5.isolated(crash, tmp_path / "a.h5")
    assert hdf5.isolated(array_of, tmp_path, 1) == 0
    assert capfd.readouterr() == ("", "")


def test_a_file_is_not_blamed_for_a_process_that_another_one_spoiled(tmp_path):
    hdf5.isolated(process_of, tmp_path)
    assert hdf5.isolated(crash_once, tmp_path / "a.h5") == "read"


@pytest.mark.skipif(sys.platform != "linux", reason="limits on memory are Linux's")
def test_a_call_has_a_gigabyte_and_what_a_large_file_needs(tmp_path):
    with pytest.raises(MemoryError):
        hdf5.isolated(take, tmp_path / "none", 2 << 30)
    with (tmp_path / "large").open("wb") as file:
        file.truncate(100 << 20)
    assert hdf5.isolated(take, tmp_path / "large", 2 << 30) == 2 << 30
    first = hdf5.isolated(leak, tmp_path)
    assert hdf5.isolated(process_of, tmp_path) != first


def test_an_interrupted_call_leaves_no_answer_for_the_next(tmp_path):
    class StopError(Exception):
        pass

    def stop(number, frame):
        raise StopError

    hdf5.isolated(process_of, tmp_path)
    before = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(StopError):
            hdf5.isolated(wait, tmp_path)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert hdf5.isolated(array_of, tmp_path, 2).shape == (2,)


def test_a_call_without_end_is_one_line_and_the_next_is_served(tmp_path, monkeypatch):
    hdf5.isolated(process_of, tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(hdf5, "_SECONDS", 0.3)
        with pytest.raises(InputError, match="the HDF5 library came to no end in 0 s"):
            hdf5.isolated(wait, tmp_path / "a.h5")
    assert hdf5.isolated(array_of, tmp_path, 2).shape == (2,)


def test_threads_share_the_process(tmp_path):
    with ThreadPoolExecutor(4) as threads:
        made = list(threads.map(lambda n: hdf5.isolated(array_of, tmp_path, 50, n, fill=n),
                                range(1, 60)))
    assert all(one.shape == (50, n) and (one == n).all() for n, one in enumerate(made, 1))
    assert threading.active_count() < 50


def test_it_ends_with_a_program_that_is_killed():
    program = ("import os, signal; from pathlib import Path; import test_hdf5;"
               "from flatjax.data.io import hdf5;"
               "print(hdf5.isolated(test_hdf5.process_of, Path('x')), flush=True);"
               "os.kill(os.getpid(), signal.SIGKILL)")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                          cwd=Path(__file__).parent)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert gone(int(done.stdout))


def test_a_call_without_end_ends_also_when_its_program_is_gone():
    program = ("import os, signal, threading; from pathlib import Path; import test_hdf5;"
               "from flatjax.data.io import hdf5;"
               "hdf5._SECONDS = 2.0;"
               "print(hdf5.isolated(test_hdf5.process_of, Path('x')), flush=True);"
               "threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGKILL)).start();"
               "hdf5.isolated(test_hdf5.spin, Path('x'))")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                          cwd=Path(__file__).parent)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert gone(int(done.stdout))


def test_a_python_without_flatjax_is_told(tmp_path, monkeypatch):
    hdf5.stop()
    monkeypatch.setattr(hdf5, "_SERVE", "import sys; sys.exit(3)")
    with pytest.raises(RuntimeError, match="did not start: .* ended with 3"):
        hdf5.isolated(process_of, tmp_path)
