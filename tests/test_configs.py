"""Every config that ships takes one step, shrunk, through the command line's own way in."""

from pathlib import Path

import jax
import pytest

from flatjax import config
from flatjax.cli import load_config_file, override
from flatjax.train import train

CONFIGS = sorted(Path(__file__).parents[1].glob("configs/[!_]*.py"))
SHRUNK = ["--config.method.channels=2", "--config.method.pools=1",
          "--config.train.steps=1", "--config.train.warmup_steps=0", "--config.train.accumulate=1",
          f"--config.train.batch_size={jax.local_device_count()}", "--config.data.matrix=32"]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_takes_a_step(path, tmp_path):
    full = load_config_file(str(path))
    steps = ["--config.method.steps=2"] if "steps" in full.method else []
    small = override(full, SHRUNK + steps)
    assert train(small, tmp_path)["psnr"] > 0
    header = path.read_text().split('"""')[1]
    assert f"--config=configs/{path.name}" in header, "a header gives the command"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_builds_at_full_size(path):
    full = load_config_file(str(path))
    config.make_method(full)
    config.make_acquisition(full)
    config.make_training(full, 1)
    config.make_evaluation(full)
