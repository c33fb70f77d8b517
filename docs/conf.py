"""The documentation site: `sphinx-build -W -c docs . build/site`, after `pip install -e '.[docs]'`.

The pages are the Markdown files and notebooks of the repository, under the paths that they have
there, so that one link serves both. Nothing is executed but the import of flatjax, and no page asks
another host for anything: equations are MathML, fonts are those of the reader's system.
"""

import re
from importlib import import_module
from pkgutil import walk_packages

import latex2mathml.converter
from docutils import nodes
from sphinx.util import logging

import flatjax

project, author, release = "flatjax", "the flatjax authors", flatjax.__version__
root_doc = "docs/index"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
include_patterns = ["*.md", "docs/**.md", "examples/*.ipynb", "flatjax/inference/models/*/*.md"]
exclude_patterns = [".*", "build", "dist", "runs", "tests", "**/runs"]

html_theme = "furo"
html_title = f"flatjax {release}"
html_extra_path = ["index.html"]  # leads to docs/index.html
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_copy_source = html_show_copyright = False

nb_execution_mode = "off"
myst_heading_anchors = 4
myst_enable_extensions = ["dollarmath"]
myst_fence_as_directive = ["math"]  # both as GitHub and notebooks write equations
html_math_renderer = "mathml"

default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # docstrings tell shapes and dtypes
python_maximum_signature_line_length = 80
napoleon_custom_sections = [("Attributes", "params_style")]
napoleon_use_rtype = False


def inline_math(self, node: nodes.math) -> None:
    """An equation within a line."""
    self.body.append(latex2mathml.converter.convert(node.astext()))
    raise nodes.SkipNode


def display_math(self, node: nodes.math_block) -> None:
    """An equation on lines of its own."""
    equation = latex2mathml.converter.convert(node.astext(), display="block")
    self.body.append(f'<div class="math">{equation}</div>')
    raise nodes.SkipNode


def mark_code(app, what, name, obj, options, lines: list[str]) -> None:
    """Have Sphinx take an indented paragraph for code, as a reader does."""
    text = re.sub(r"(?m)(^\S.*\n\n)(?=    )", r"\1::\n\n", "\n".join(lines))
    lines[:] = text.split("\n")


def skip_fields(app, what, name, obj, skip: bool, options) -> bool | None:
    """Leave the fields of named tuples to the docstrings of these, which describe them."""
    return True if type(obj).__name__ == "_tuplegetter" else None


def check_public_names(app, env) -> None:
    """Warn of a name in an `__all__` that no page describes."""
    def found(name: str):
        parent, _, attribute = name.rpartition(".")
        try:
            return getattr(import_module(parent), attribute)
        except ImportError:  # the parent is a class
            return None

    described = {id(found(name)) for name in env.domains["py"].objects if "." in name}
    for module in (flatjax, *(import_module(one.name) for one in walk_packages(
            flatjax.__path__, "flatjax.") if one.ispkg)):
        for name in getattr(module, "__all__", ()):
            if id(getattr(module, name)) not in described:
                logging.getLogger(__name__).warning(
                    f"{module.__name__}.{name} is public and no page of docs/api describes it")


def setup(app) -> None:
    """Connect the functions above."""
    app.add_html_math_renderer("mathml", (inline_math, None), (display_math, None))
    app.connect("autodoc-process-docstring", mark_code, priority=100)  # before napoleon
    app.connect("autodoc-skip-member", skip_fields)
    app.connect("env-check-consistency", check_public_names)
