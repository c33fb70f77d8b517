"""Every config that ships takes one step, shrunk, through the command line's own way in."""

import runpy
from pathlib import Path

import jax
import numpy as np
import pytest

from flatjax import config
from flatjax.errors import InputError
from flatjax.experiments.config_file import load_config_file, override
from flatjax.experiments.grid import trials
from flatjax.methods import METHODS as ALL
from flatjax.mri import Batch, Measurement
from flatjax.options import flattened
from flatjax.runs.weights import expected_params
from flatjax.runs.workdir import at_test_time
from flatjax.training.train import train

GRIDS = {"ablate", "compare", "shift"}  # see test_grid.py
CONFIGS = [path for path in sorted(Path(__file__).parents[1].glob("configs/[!_]*.py"))
           if path.stem not in GRIDS]
METHODS = {path: runpy.run_path(str(path)).get("METHODS", {"": {}}) for path in CONFIGS}
NAMES = [f"{path}{':' * bool(name)}{name}" for path in CONFIGS for name in METHODS[path]]
OF_FILES = ("fastmri", "brainweb", "mrbrains13")  # see test_fastmri_scripts, test_data_mrbrains13
# The other methods of a config are compiled for minutes, and have tests of their own.
STEPPED = [name if name.endswith((".py", ":flat")) else pytest.param(name, marks=pytest.mark.slow)
           for name in NAMES if not any(part in name for part in OF_FILES)
           and ("brain.py:" not in name or name.endswith("flat"))]
SMALL = {"network.channels": 2, "network.pools": 1, "schedule.steps": 2,
         "steps": 2}  # of what a method has of them
SHRUNK = ["--config.train.steps=1", "--config.train.accumulate=1",
          f"--config.train.batch_size={jax.local_device_count()}"]


def title(name):
    return name.split("/")[-1].replace(".py", "")


@pytest.mark.parametrize("name", STEPPED, ids=title)
def test_config_takes_a_step(name, tmp_path):
    full = load_config_file(name)
    method = [f"--config.method.{key}={SMALL[key]}" for key in SMALL
              if key in flattened(full.method)]
    small = override(full, [*SHRUNK, *method, "--config.data.matrix=32"])
    assert np.isfinite(train(small, tmp_path)["psnr"])  # two steps of a diffusion may be noise


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_header_gives_the_command(path):
    header = path.read_text().split('"""')[1]
    assert f"--config=configs/{path.name}" in header


@pytest.mark.parametrize("path", [path for path in CONFIGS if "" not in METHODS[path]],
                         ids=lambda path: path.stem)
def test_a_config_of_several_methods_starts_with_flat_and_refuses_others(path):
    assert config.to_json(load_config_file(str(path))) == config.to_json(
        load_config_file(f"{path}:flat"))
    with pytest.raises(InputError, match="the method is 'vernet', expected .*varnet"):
        load_config_file(f"{path}:vernet")
    lacking = set(ALL) - set(METHODS[path])
    assert lacking <= {"zero_filled", "cg_sense"}, "every method for a single coil has a recipe"


@pytest.mark.parametrize("name", NAMES, ids=title)
def test_config_builds_at_full_size(name):
    """Its loss and its reconstruction too, without computing anything."""
    full = load_config_file(name)
    method = config.make_method(full)
    coils, matrix = full.data.get("coils") or 1, full.data.get("matrix") or 64
    kspace = jax.ShapeDtypeStruct((1, coils, matrix, matrix), np.complex64)
    image = jax.ShapeDtypeStruct((1, matrix, matrix), np.float32)
    measured = Measurement(kspace, jax.ShapeDtypeStruct((1, 1, matrix, matrix), np.float32),
                           kspace)
    params = expected_params(method)
    key = jax.random.key(0)
    value, parts = jax.eval_shape(method.loss, params, key, Batch(measured, kspace, image))
    assert value.shape == () and parts
    result = jax.eval_shape(method.reconstruct, params, key, measured)
    assert result.image.shape == image.shape and result.kspace.shape == kspace.shape
    config.make_acquisition(full)
    config.make_training(full, 1)
    config.make_evaluation(full)


def test_no_config_has_a_warm_up_that_is_cut_short():
    """It is cut at a fifth of the steps, for a run that is shortened on the command line."""
    grids = [load_config_file(f"{name}:{grid}") for name in ("ablate", "compare")
             for grid in runpy.run_path(str(CONFIGS[0].with_name(f"{name}.py")))["GRIDS"]]
    grids.append(load_config_file("shift"))
    alone = [load_config_file(name) for name in NAMES]
    for one in [*alone, *(trial.config for grid in grids for trial in trials(grid))]:
        assert one.train.warmup_steps <= one.train.steps // 5


def test_every_shift_of_the_scans_can_be_evaluated():
    grid = load_config_file(str(Path(__file__).parents[1] / "configs" / "shift.py"))
    assert grid.baseline == "singlecoil, as trained"
    for trial in trials(grid):
        config.make_method(trial.config)
        for evaluated in trial.evaluations.values():
            asked = at_test_time(evaluated, trial.config)
            config.make_method(asked), config.make_acquisition(asked)
