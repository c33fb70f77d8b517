"""What the README promises runs as it is written."""

import re
from pathlib import Path

import numpy as np

from flatjax.data import DATASETS
from flatjax.methods import METHODS
from flatjax.mri.host.patterns import KINDS
from flatjax.mri.host.simulate import birdcage_maps, host_fft2c
from tests.support.arrays import smooth_image

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = {path.name: path.read_text() for path in (ROOT / "docs").glob("*.md")}


SCAN, FUNCTIONAL = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_a_scan_is_reconstructed_in_three_lines(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    kspace = host_fft2c(birdcage_maps(3, (32, 32)) * smooth_image(rng, (32, 32)))
    np.save("scan.npy", np.asarray(kspace, np.complex64))
    found = {}
    exec(compile(SCAN, "README.md", "exec"), found)
    assert found["image"].shape == (32, 32)


def test_the_functional_api_runs(capsys):
    promised = re.search(r"result\.nfe\)  # (.*)", FUNCTIONAL).group(1)
    exec(compile(FUNCTIONAL, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip() == promised


def test_ci_runs_the_test_command():
    commands = re.findall(r"```bash\n(python3 -m venv.*?)\n```", README)
    assert len(commands) == 2
    assert commands[1] in (ROOT / ".ci" / "run").read_text()


def test_configs_and_kinds_named_exist():
    rows = re.findall(r"^\| (`.*?`) \|", PAGES["training.md"].partition("## Runs")[0], re.MULTILINE)
    table = {name for row in rows for name in re.findall(r"`(\w+)(?::\w+)?`", row)}
    assert table == {path.stem for path in ROOT.glob("configs/[!_]*.py")}
    assert all(f"`{kind}`" in PAGES["your_data.md"] for kind in KINDS)
    assert {"icbm", "volume"} <= set(DATASETS) and "flat" in METHODS


def test_the_readme_is_short():
    assert len(README.split()) <= 700
