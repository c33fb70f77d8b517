"""The package as a whole: what importing it costs, and where it can be imported."""

import subprocess
import sys
from pathlib import Path

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
import jax, h5py, matplotlib.pyplot, optax, orbax.checkpoint, scipy  # may need what is hidden
sys.modules["fcntl"] = sys.modules["resource"] = None
import flatjax
for module in pkgutil.walk_packages(flatjax.__path__, "flatjax."):
    importlib.import_module(module.name)
from flatjax.data.io.hdf5 import isolated
from flatjax.files import locked, write_text
lock = Path(sys.argv[1]) / "lock"
with locked(lock, "the folder"), locked(lock, "the folder"):
    pass
write_text(lock, "text")
assert isolated(Path.read_text, lock) == "text"
"""


def run(program, *arguments):
    return subprocess.run([sys.executable, "-c", program, *map(str, arguments)], cwd=ROOT,
                          capture_output=True, text=True, timeout=120)


def test_importing_the_package_imports_nothing_heavy_and_its_names_are_there():
    done = run(LIGHT)
    assert done.returncode == 0, done.stderr


def test_without_locks_and_limits_it_says_so_and_goes_on(tmp_path):
    done = run(WITHOUT, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("no locks; start no second process") == 2
