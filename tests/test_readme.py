"""What the README promises runs as it is written."""

import re
from pathlib import Path

from flatjax.data import DATASETS
from flatjax.methods import METHODS
from flatjax.mri.host.patterns import KINDS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_snippet_runs(capsys):
    snippet = re.search(r"```python\n(.*?)```", README, re.DOTALL).group(1)
    promised = re.search(r"result\.nfe\)  # (.*)", snippet).group(1)
    exec(compile(snippet, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip() == promised


def test_ci_runs_the_test_command():
    commands = re.findall(r"```bash\n(python3 -m venv.*?)\n```", README)
    assert len(commands) == 2
    assert commands[1] in (ROOT / ".ci" / "run").read_text()


def test_files_configs_and_kinds_named_exist():
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / link).exists(), link
    rows = re.findall(r"^\| (`.*?`) \|", README, re.MULTILINE)
    table = {name for row in rows for name in re.findall(r"`(\w+)(?::\w+)?`", row)}
    assert table == {path.stem for path in ROOT.glob("configs/[!_]*.py")}
    assert all(f"`{kind}`" in README for kind in KINDS)
    assert {"icbm", "volume"} <= set(DATASETS) and "flat" in METHODS
