"""Compiled programs are kept from one start to the next."""

import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from flatjax.cli import program
from flatjax.errors import InputError

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
            [sys.executable, "train.py", "--config=configs/demo.py",
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


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch, restored):
    """Ours is done without, the user's is named."""
    (tmp_path / "file").write_text("")
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    program._keep_compiled(None)
    assert jax.config.jax_compilation_cache_dir is None
    with pytest.raises(InputError, match="cannot write to the folder"):
        program._keep_compiled(str(tmp_path / "file"))
