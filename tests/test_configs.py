"""Every config that ships takes one step, shrunk, through the command line's own way in."""

from pathlib import Path

import jax
import numpy as np
import pytest
from fastmri_fixture import write_folder

from flatjax import config
from flatjax.cli import load_config_file, override
from flatjax.train import train

CONFIGS = sorted(Path(__file__).parents[1].glob("configs/[!_]*.py"))
SHRUNK = ["--config.method.channels=2", "--config.method.pools=1",
          "--config.train.steps=1", "--config.train.warmup_steps=0", "--config.train.accumulate=1",
          f"--config.train.batch_size={jax.local_device_count()}"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Options that put small data in the place of a config's own, by the data set's name."""
    folder = tmp_path_factory.mktemp("fastmri")
    for challenge in ("singlecoil", "multicoil"):
        write_folder(folder, challenge)
    return {"fastmri": [f"--config.data.path={folder}"]}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_takes_a_step(path, files, tmp_path):
    full = load_config_file(str(path))
    steps = ["--config.method.steps=2"] if "steps" in full.method else []
    data = files.get(full.data.name, ["--config.data.matrix=32"])
    small = override(full, SHRUNK + steps + data)
    assert np.isfinite(train(small, tmp_path)["psnr"])  # two steps of a diffusion may be noise
    header = path.read_text().split('"""')[1]
    assert f"--config=configs/{path.name}" in header, "a header gives the command"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_builds_at_full_size(path):
    full = load_config_file(str(path))
    config.make_method(full)
    config.make_acquisition(full)
    config.make_training(full, 1)
    config.make_evaluation(full)
