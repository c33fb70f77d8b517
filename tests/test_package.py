"""The package as a whole: what importing it costs, and where it can be imported."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import flatjax
from tests.support import fastmri_fixture
from tests.support.kspace_fixture import scan_of

ROOT = Path(__file__).parents[1]
LIGHT = """
import sys
import flatjax
assert not {"jax", "numpy", "flax", "h5py", "matplotlib"} & {*sys.modules}, "not light"
for name in flatjax.__all__:
    assert getattr(flatjax, name) is not None
assert flatjax.metrics.psnr and flatjax.data.icbm.make and flatjax.methods.flat
try:
    flatjax.nothing
except AttributeError as error:
    assert "nothing" in str(error)
"""
WITHOUT = """
import importlib, pkgutil, sys
from pathlib import Path
import jax, h5py, nibabel, optax, orbax.checkpoint, scipy  # may need what is hidden
hidden, folder, *scans = sys.argv[1:]
if "matplotlib" not in hidden:
    import matplotlib.figure
sys.modules.update(dict.fromkeys(hidden.split(",")))
import flatjax
for module in pkgutil.walk_packages(flatjax.__path__, "flatjax."):
    importlib.import_module(module.name)
"""
PROGRAMS = """
from flatjax import cli
for command in "inspect", "reconstruct":
    cli.main([command, *scans, f"--output={folder}/{command}"])
"""
UNLOCKED = """
from flatjax.data.io.hdf5 import isolated
from flatjax.files import locked, write_text
lock = Path(folder) / "lock"
with locked(lock, "the folder"), locked(lock, "the folder"):
    pass
write_text(lock, "text")
assert isolated(Path.read_text, lock) == "text"
"""


@pytest.fixture
def scans(tmp_path):
    np.save(tmp_path / "array.npy", scan_of()[0])
    fastmri_fixture.write(tmp_path / "file1.h5", coils=3)
    return tmp_path / "array.npy", tmp_path / "file1.h5"


def run(program, *arguments, **environment):
    return subprocess.run([sys.executable, "-c", program, *map(str, arguments)], cwd=ROOT,
                          capture_output=True, text=True, timeout=120,
                          env=os.environ | environment)


def test_importing_the_package_imports_nothing_heavy_and_its_names_are_there():
    done = run(LIGHT)
    assert done.returncode == 0, done.stderr


def test_without_locks_and_limits_it_says_so_and_goes_on(tmp_path, scans):
    """As on Windows."""
    done = run(WITHOUT + UNLOCKED + PROGRAMS, "fcntl,resource", tmp_path, *scans)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("no locks; start no second process") == 2
    assert {path.name for path in (tmp_path / "reconstruct").glob("*.h5")} == {
        "array.h5", "file1.h5"}


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "nonsense"])
def test_matplotlib_draws_without_its_backend_and_is_not_imported_before(
        tmp_path, scans, backend):
    """A notebook hands on its own to `!python`, which need not have it."""
    again = 'for name in hidden.split(","): del sys.modules[name]'
    done = run(WITHOUT + again + PROGRAMS + 'assert "matplotlib.pyplot" not in sys.modules',
               "matplotlib", tmp_path, *scans, MPLBACKEND=backend)
    assert done.returncode == 0, done.stderr
    for command in ("inspect", "reconstruct"):
        assert {path.name for path in (tmp_path / command).glob("*.png")} == {
            "array.png", "file1.png"}


def test_the_version_is_the_same_everywhere():
    citation, changes = ((ROOT / name).read_text() for name in ("CITATION.cff", "CHANGELOG.md"))
    assert f"\nversion: {flatjax.__version__}\n" in citation
    assert changes.startswith(f"# Change log\n\n## {flatjax.__version__}, ")
