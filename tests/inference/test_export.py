"""A trained reconstruction as a file: bit-equal in a process that knows nothing of flatjax."""

import subprocess
import sys

import jax
import numpy as np
import pytest
from jax import export

from flatjax import config
from flatjax.data import DATASETS, training_batch
from flatjax.errors import StorageError
from flatjax.inference.export import PLATFORMS, export_run, exported
from flatjax.methods import METHODS
from flatjax.runs.workdir import load_config, load_params
from tests.support import toy
from tests.support.arrays import noisy
from tests.support.build import shrunk
from tests.support.untrained import workdir

CALL = """
import sys
import numpy as np
from jax import export
program = export.deserialize(open("program", "rb").read())
inputs = np.load("inputs.npz")
out = program.call(inputs["kspace"], inputs["mask"], inputs["maps"], np.int32(0))
assert not [name for name in sys.modules if name.startswith(("flatjax", "flax", "optax"))]
np.savez("out.npz", **out)
"""


def batch(size):
    return training_batch(toy.make(), config.Acquisition(), 0, 0, size)


@pytest.mark.parametrize("name", METHODS)
def test_every_reconstruction_lowers_for_every_platform_and_any_batch(name):
    method = shrunk(name, samples=2)
    params = jax.eval_shape(method.init, jax.random.key(0), batch(2))
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), params)
    program = exported(method, params, batch(2).measurement)
    assert program.platforms == PLATFORMS == ("cpu", "cuda", "tpu")
    outputs = jax.tree.unflatten(program.out_tree, program.out_avals)
    assert str(outputs["image"].shape) == "(batch, 16, 16)" and outputs["image"].dtype == "float32"


@pytest.mark.parametrize("name, options", [("flat", {}), ("mc_ddpm", {"samples": 2})])
def test_the_result_is_the_same_to_rounding_for_another_batch_size_and_seed(name, options):
    method = shrunk(name, **options)
    params = noisy(jax.jit(method.init)(jax.random.key(0), batch(2)), 0.1)
    program = export.deserialize(exported(method, params, batch(2).measurement).serialize())
    measurement = batch(3).measurement
    out = program.call(*measurement[:3], np.int32(7))
    expected = jax.jit(method.reconstruct)(params, jax.random.key(7), measurement)
    for key, array in out.items():
        np.testing.assert_allclose(array, getattr(expected, key), rtol=2e-5, atol=2e-7)
    assert ("std" in out) == (expected.std is not None)
    with pytest.raises(ValueError, match="[Ss]hape|dim"):
        program.call(*jax.tree.map(lambda x: x[..., :12], measurement[:3]), np.int32(7))


def test_an_exported_run_is_called_in_a_fresh_process(tmp_path, monkeypatch):
    monkeypatch.setitem(DATASETS, "toy", toy.make)
    run = workdir(tmp_path / "run", config.method("flat", **toy.TINY))
    settings = load_config(run)
    export_run(settings, run, tmp_path / "program")
    measurement = batch(3).measurement
    kspace, mask, maps, _ = measurement
    np.savez(tmp_path / "inputs.npz", kspace=kspace, mask=mask, maps=maps)
    subprocess.run([sys.executable, "-c", CALL], cwd=tmp_path, check=True, timeout=180)
    method = toy.flat()
    params, _ = load_params(run, settings, method)
    expected = jax.jit(method.reconstruct)(params, jax.random.key(0), measurement)
    with np.load(tmp_path / "out.npz") as out:
        assert sorted(out.files) == ["image", "kspace"]
        np.testing.assert_array_equal(out["image"], expected.image)
        assert np.abs(out["image"]).max() > 0.1
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        export_run(settings, run, tmp_path / "file" / "program")
