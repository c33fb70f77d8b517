"""Shared by all tests: four simulated devices, and small batches."""

import os
import tempfile
from importlib.metadata import version
from pathlib import Path

# Tests compile many tiny programs and run each once: compile fast, not well, and nothing twice in
# any worker or subprocess.
_FLAGS = ["--xla_backend_optimization_level=0"]
if tuple(map(int, version("jaxlib").split(".")[:2])) < (0, 11):  # XLA ends at a flag it lacks
    _FLAGS.append("--xla_cpu_use_fusion_emitters=false")
os.environ["XLA_FLAGS"] = " ".join([*_FLAGS, os.environ.get("XLA_FLAGS", "")])
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _CACHE = tempfile.TemporaryDirectory()
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _CACHE.name

import jax  # noqa: E402

jax.config.update("jax_num_cpu_devices", 4)

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

from flatjax.data.io import hdf5  # noqa: E402
from flatjax.mri import Batch, Measurement, combine, expand  # noqa: E402
from flatjax.mri.host.masks import make_mask  # noqa: E402
from flatjax.mri.host.simulate import birdcage_maps  # noqa: E402
from tests.support.arrays import smooth_image  # noqa: E402

QUICK = ("mri", "nets", "flow/test_flow.py", "flow/test_scan.py", "flow/test_diffusion.py",
         "data/io", "evaluation/test_metrics.py", "test_losses.py", "test_files.py")


def pytest_collection_modifyitems(items):
    """Mark what `-m quick` runs: folders and files, so that new tests need no mark of their own."""
    for item in items:
        path = item.path.relative_to(Path(__file__).parent)
        quick = any(path.is_relative_to(one) for one in QUICK)
        if quick and not item.get_closest_marker("slow"):
            item.add_marker("quick")


@pytest.fixture(autouse=True, scope="module")
def compiled_programs_go_with_their_module():
    """Each holds mappings of memory; a process has 65,530 on Linux, and dies of the next one."""
    yield
    jax.clear_caches()


def pytest_sessionstart():
    """Measure coverage in the process that reads HDF5 files, and in no other one: it is slow."""
    measured = os.environ.pop("COVERAGE_PROCESS_CONFIG", None)
    if measured:
        hdf5._SERVE = (f"import os; os.environ['COVERAGE_PROCESS_CONFIG'] = {measured!r}; "
                       f"import coverage; coverage.process_startup(); {hdf5._SERVE}")


def pytest_sessionfinish():
    """Let the process that reads HDF5 files end before its coverage is collected."""
    hdf5.stop()


@pytest.fixture(scope="session")
def make_batch():
    """`(seed, batch, coils, shape) -> Batch` of smooth images, R = 3, noise-free."""
    def make(seed=0, batch=2, coils=1, shape=(24, 26), acceleration=3):
        rng = np.random.default_rng(seed)
        image = jnp.stack([smooth_image(rng, shape) for _ in range(batch)])
        maps = jnp.broadcast_to(birdcage_maps(coils, shape), (batch, coils, *shape))
        mask = jnp.asarray(np.stack([make_mask("random", shape, acceleration, 0.1, seed + i)
                                     for i in range(batch)]))[:, None]
        kspace = expand(image, maps)
        return Batch(Measurement(mask * kspace, mask, maps), kspace, combine(kspace, maps))
    return make
