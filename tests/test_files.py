"""Whole files or none, and locks that a dead process does not hold."""

import errno
import json
import os
import signal
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from flatjax.errors import BusyError, InputError, StorageError
from flatjax.files import MetricsLog, locked, write_atomically, write_json, write_text
from tests.support.limits import files_of_at_most


def test_a_lock_is_held_once_and_names_its_holder(tmp_path):
    with (locked(tmp_path / ".lock", "the run"),
          pytest.raises(BusyError, match=f"the run is in use by process {os.getpid()} on"),
          locked(tmp_path / ".lock", "the run")):
        pass
    with locked(tmp_path / ".lock", "the run"):
        pass


def test_a_lock_holds_on_a_full_disk_and_hides_no_error(tmp_path):
    path = tmp_path / ".lock"
    with files_of_at_most(0), pytest.raises(ZeroDivisionError), locked(path, "it"):
        with pytest.raises(BusyError, match="it is in use by another process"), locked(path, "it"):
            pass
        raise ZeroDivisionError


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    code = ("import sys, time; from pathlib import Path; from flatjax.files import locked\n"
            "with locked(Path(sys.argv[1]), 'it'): print('held', flush=True); time.sleep(60)")
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / ".lock")],
                              stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"held\n"
    with (pytest.raises(BusyError, match=f"process {holder.pid}"),
          locked(tmp_path / ".lock", "it")):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with locked(tmp_path / ".lock", "it"):
        pass


def test_a_file_that_many_write_at_once_is_always_whole(tmp_path):
    path = tmp_path / "result [1].json"
    texts = [str(i) * 20_000 for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda text: write_text(path, text), texts * 5))
    assert path.read_text() in texts and os.listdir(tmp_path) == [path.name]


def test_files_are_open_for_writing_when_they_are_flushed(tmp_path, monkeypatch):
    """Windows flushes no other."""
    flushed = []

    def flush(handle):
        flushed.append(stat.S_ISDIR(os.fstat(handle).st_mode) or os.write(handle, b"") == 0)

    monkeypatch.setattr(os, "fsync", flush)
    write_text(tmp_path / "text", "text")
    assert flushed == [True, True]


def test_a_name_that_is_no_utf_8_is_written_in_escapes(tmp_path):
    write_text(tmp_path / "text", f"µ, {os.fsdecode(bytes([98, 255]))}")
    assert (tmp_path / "text").read_text() == "µ, b\\udcff"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"x": 1})
    before = path.read_text()
    with (files_of_at_most(100), pytest.raises(StorageError, match="cannot write .*a.json: File "
                                               "too large; what was written before is intact")):
        write_json(path, {"x": list(range(1000))})

    def full(temporary):
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StorageError, match="No space left"):
        write_atomically(path, full)
    with pytest.raises(StorageError, match="below: File exists"):
        write_text(path / "below", "")
    assert path.read_text() == before and os.listdir(tmp_path) == ["a.json"]


def test_a_log_that_cannot_be_written_says_so_and_goes_on_whole(tmp_path):
    log = MetricsLog(tmp_path, 0)
    log.write("train", 1, {"loss": 1.0})
    with files_of_at_most(60), pytest.raises(StorageError, match="cannot write .*metrics.jsonl"):
        log.write("train", 2, {"loss": 1.0})
    log.close()
    log = MetricsLog(tmp_path, 2)
    log.write("train", 3, {"loss": float("nan")})
    log.close()
    lines = [json.loads(line, parse_constant=pytest.fail)
             for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines] == [(1, 1.0), (2, 1.0), (3, None)]


def test_tensorboard_events_are_written_or_the_package_is_named(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "tensorboardX", None)
        with pytest.raises(InputError, match=r"install flatjax\[tensorboard\]"):
            MetricsLog(tmp_path, 0, tensorboard=True)
    pytest.importorskip("tensorboardX")
    log = MetricsLog(tmp_path, 0, tensorboard=True)
    log.write("train", 1, {"loss": 1.0})
    log.close()
    assert list((tmp_path / "tensorboard").glob("events*"))
