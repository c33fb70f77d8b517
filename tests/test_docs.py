"""The documentation has no broken link, lists every page and describes every public name."""

import inspect
import re
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from pkgutil import walk_packages

import pytest

import flatjax

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*.ipynb"),
                *ROOT.glob("flatjax/inference/models/*/*.md")])
API = "".join(path.read_text() for path in ROOT.glob("docs/api/*.md"))


def anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r'^(?: *")?#+ (.*?)(?:\\n",?)?$', page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_relative_links_lead_to_files_and_headings():
    broken = []
    for page in PAGES:
        for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text()):
            file, _, anchor = link.partition("#")
            target = (page.parent / file) if file else page
            if not target.exists() or (anchor and anchor not in anchors(target)):
                broken.append(f"{page.relative_to(ROOT)}: {link}")
    assert not broken


def test_every_page_is_listed():
    listed = set()
    for page in (ROOT / "docs" / "index.md", ROOT / "docs" / "tables.md"):
        for block in re.findall(r"```{toctree}\n(.*?)```", page.read_text(), re.DOTALL):
            for line in block.splitlines():
                entry = re.search(r"<(.*)>", line)
                listed |= {path.resolve() for suffix in (".md", ".ipynb") for path in
                           (ROOT / "docs").glob((entry[1] if entry else line) + suffix)
                           if line and not line.startswith(":")}
    assert {*PAGES} - listed == {ROOT / "docs" / "index.md"}


def test_every_public_name_has_a_text_on_a_page():
    for module in (flatjax, *(import_module(one.name) for one in walk_packages(
            flatjax.__path__, "flatjax.") if one.ispkg)):
        public = getattr(module, "__all__", ())
        assert not public or f".. automodule:: {module.__name__}\n" in API
        for name in public:
            value = getattr(module, name)
            if inspect.ismodule(value):
                assert f".. automodule:: {value.__name__}\n" in API
            elif callable(value):
                assert value.__doc__, f"{module.__name__}.{name}"
            else:
                assert f".. py:data:: {name}\n" in API, f"{module.__name__}.{name}"


@pytest.mark.skipif(not all(map(find_spec, ("sphinx", "myst_nb", "furo", "latex2mathml"))),
                    reason="needs the extra docs")
def test_the_site_builds_without_a_warning(tmp_path):
    done = subprocess.run([sys.executable, "-m", "sphinx", "-qW", "-c", "docs", ".", tmp_path],
                          cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "docs" / "method.html").exists()
