"""What CONTRIBUTING promises runs as it is written: things of one's own, outside of flatjax."""

import json
import re
import shlex
import sys
from pathlib import Path

import pytest

from flatjax import cli

TEXT = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()
FILES = dict(re.findall(r"`(my\w+\.py)`:\n\n```python\n(.*?)```", TEXT, re.DOTALL))
COMMANDS = [line for line in TEXT.splitlines() if line.startswith("flatjax ")]
SMALL = """
from flatjax import config
from flatjax.experiments.config_file import load_config_file
from flatjax.experiments.grid import changed

def get_config():
    return changed(load_config_file("singlecoil"), {
        "data.matrix": 32, "method.network.channels": 2, "method.network.pools": 0,
        "method.schedule.steps": 2, "evaluation.figures": 0})
"""


def test_a_method_a_solver_and_a_data_set_of_ones_own_work_in_all_programs(tmp_path, monkeypatch,
                                                                          capsys):
    assert FILES.keys() == {"mymethod.py", "mysolver.py", "mydata.py"} and len(COMMANDS) == 4
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [one for one in sys.path if one])
    for name, content in FILES.items():
        Path(name).write_text(content)
    Path("small.py").write_text(SMALL)  # in place of the demo
    for command in COMMANDS:
        cli.main(shlex.split(command.replace("--config=demo", "--config=small.py"))[1:])
    assert "next: flatjax evaluate --workdir=runs/a" in capsys.readouterr().out
    saved = json.loads(Path("runs/a/config.json").read_text())
    assert (saved["method"]["name"], saved["method"]["start"]) == ("mymethod:SPEC", 1.0)
    assert (saved["data"]["name"], saved["data"]["matrix"]) == ("mydata:make", 32)
    other = json.loads(Path("runs/b/config.json").read_text())
    assert other["method"]["solver"] == "mysolver:SOLVER"
    metrics = json.loads(Path("runs/a/eval/metrics.json").read_text())
    assert metrics["method"]["name"] == "mymethod:SPEC" and metrics["test_set"] == "squares"
    rows = json.loads(Path("runs/ab/comparison.json").read_text())
    assert [(row["run"], row["nfe"]) for row in rows] == [("a", 0), ("b", 2 * 3)]
    for name in FILES:  # elsewhere they are not found
        monkeypatch.delitem(sys.modules, name.removesuffix(".py"))
    workdir = Path("runs/a").absolute()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    with pytest.raises(SystemExit) as stop:
        cli.main(["evaluate", f"--workdir={workdir}"])
    error = capsys.readouterr().err.splitlines()[-1]
    assert stop.value.code == 2 and "'mymethod:SPEC', which cannot be imported" in error
    assert "start in the folder of that module, or install it" in error
