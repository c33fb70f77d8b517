"""Compiled programs are kept from one start to the next."""

import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from flatjax.cli import program
from flatjax.errors import InputError
from tests.support.kspace_fixture import scan_of

ROOT = Path(__file__).parents[2]
TINY = [
    "--config.train.steps=1",
    "--config.train.warmup_steps=0",
    "--config.data.matrix=32",
    "--config.method.network.channels=2",
    "--config.method.network.pools=0",
    "--config.method.schedule.steps=2",
]


@pytest.fixture
def restored():
    """JAX's settings, put back after the test."""
    names = "jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs"
    before = {name: getattr(jax.config, name) for name in names}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.mark.slow
def test_a_second_start_compiles_nothing_anew(tmp_path):
    environment = {key: value for key, value in os.environ.items()
                   if key != "JAX_COMPILATION_CACHE_DIR"}
    environment |= {"XDG_CACHE_HOME": str(tmp_path), "JAX_DEBUG_LOG_MODULES": "jax._src.compiler"}
    hits, misses = [], []
    for name in ("first", "second"):
        done = subprocess.run(
            [sys.executable, "train.py", "--config=configs/singlecoil.py",
             f"--workdir={tmp_path / name}", *TINY],
            cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        hits.append(set(re.findall(r"cache hit for '(\w+)'", done.stderr)))
        misses.append(set(re.findall(r"CACHE MISS for '(\w+)'", done.stderr)))
    assert "jit_score" in misses[0] and len(misses[0]) > 5
    assert misses[0] <= hits[1] and not misses[1]


def test_where_it_is(tmp_path, monkeypatch, restored):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "a"))
    program._keep_compiled(None)
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "a")
    program._keep_compiled(str(tmp_path / "b"))
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "b")
    program._keep_compiled("")
    assert jax.config.jax_compilation_cache_dir is None
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "c"))
    program._keep_compiled(None)
    ours = str(tmp_path / "c" / "flatjax" / "xla")
    assert jax.config.jax_compilation_cache_dir.startswith(ours)


def start(program, *arguments, **environment):
    """Its stderr, on a computer that says nothing of where caches belong."""
    known = {key: value for key, value in os.environ.items()
             if key not in ("HOME", "XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR")}
    done = subprocess.run([sys.executable, "-c", program, *map(str, arguments)], cwd=ROOT,
                          env=known | environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stderr


COMPILE = """
import sys, jax
from flatjax.cli import program
program._keep_compiled(sys.argv[1])
assert jax.jit(lambda x: jax.numpy.sin(2 * x) + 1)(jax.numpy.zeros(3))[2] == 1
"""


def test_damaged_programs_are_compiled_anew_and_kept_with_one_line(tmp_path):
    assert not start(COMPILE, tmp_path)
    entries = sorted(tmp_path.glob("*-cache"))
    whole = [entry.read_bytes() for entry in entries]
    for entry, content in zip(entries, whole, strict=True):
        entry.write_bytes(content[:-10])
    entries[-1].write_bytes(b"")
    error = start(COMPILE, tmp_path)
    assert len(entries) > 1 and error.count("\n") == 1 and "are compiled anew" in error
    assert all(entry.stat().st_size > len(content) - 10 > 0
               for entry, content in zip(entries, whole, strict=True))
    assert not start(COMPILE, tmp_path)


HOMELESS = """
import pwd, sys
from flatjax import cli
def unknown(number): raise KeyError(number)
pwd.getpwuid = unknown
cli.main(sys.argv[1:])
"""


@pytest.mark.parametrize("option", [[], ["--compilation-cache="]])
def test_a_user_without_a_home_gets_a_temporary_one_and_one_line(tmp_path, option):
    """As in a container that is started for any number of a user."""
    np.save(tmp_path / "scan.npy", scan_of(coils=1)[0])
    (tmp_path / "tmp").mkdir()
    error = start(HOMELESS, "inspect", tmp_path / "scan.npy", f"--output={tmp_path}", *option,
                  TMPDIR=str(tmp_path / "tmp"))
    (line,) = [one for one in error.splitlines() if one and not re.search("it/s|file]", one)]
    assert "there is no home folder, so a temporary one" in line  # beside a slow one's progress
    assert (tmp_path / "scan.png").exists() and not list((tmp_path / "tmp").iterdir())


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch, restored):
    """Ours is done without, the user's is named."""
    (tmp_path / "file").write_text("")
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    program._keep_compiled(None)
    assert jax.config.jax_compilation_cache_dir is None
    with pytest.raises(InputError, match="cannot write to the folder"):
        program._keep_compiled(str(tmp_path / "file"))
