"""The notebooks run from top to bottom, with small numbers in place of theirs."""

import json
import re
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL = {"scan": {}, "train": {"SIZE": 32, "UPDATES": 2, "STEPS": 3},
         "method": {"SIZE": 32, "UPDATES": 2}}


@pytest.mark.parametrize("name", SMALL)
def test_a_notebook_runs_and_draws_as_many_pictures_as_it_shows(name, tmp_path, monkeypatch):
    cells = [cell for cell in json.loads((EXAMPLES / f"{name}.ipynb").read_text())["cells"]
             if cell["cell_type"] == "code"]
    code = "\n\n".join("".join(cell["source"]) for cell in cells)
    for number, value in SMALL[name].items():
        code, found = re.subn(rf"^{number} = \d+$", f"{number} = {value}", code, flags=re.MULTILINE)
        assert found == 1, number
    monkeypatch.chdir(tmp_path)
    plt.switch_backend("agg")
    exec(compile(code, f"{name}.ipynb", "exec"), {})
    shown = [output for cell in cells for output in cell["outputs"]
             if "image/png" in output.get("data", ())]
    assert len(plt.get_fignums()) == len(shown) > 0
    plt.close("all")


def test_every_notebook_is_run():
    assert SMALL.keys() == {path.stem for path in EXAMPLES.glob("*.ipynb")}
