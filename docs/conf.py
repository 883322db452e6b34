"""Sphinx makes the site from the Markdown pages: ``python -m sphinx -W --keep-going -b html docs build/site``."""

import re
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math import latex2mathml, mathml_elements

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # autodoc imports the clone, installed or not
import lnpool

project = "lnpool"
copyright = "the lnpool authors, Apache-2.0"
version = release = lnpool.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 4  # the anchors that GitHub makes; a link to one that is not there is a warning
default_role = "literal"  # docstrings mark code with one backtick or with two
autodoc_typehints = "none"  # docstrings say shapes and types; a union of jaxtyping fills half a page
autodoc_member_order = "bysource"
python_maximum_signature_line_length = 90

html_theme = "furo"
pygments_dark_style = "monokai"
html_title = "lnpool"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_math_renderer = "mathml"


def from_the_root(app: Any, path: Path, page: str, content: list[str]) -> None:
    """Let the links of a page that is included from the root of the repository start in ``docs``."""
    content[0] = re.sub(r"\]\((?!https?:|#)", "](../", content[0]).replace("](../docs/", "](")


def to_the_root(app: Any, page: str, content: list[str]) -> None:
    """Let links to pages at the root of the repository lead to the pages that include them."""
    for name, page_here in (("README", "index"), ("CONTRIBUTING", "contributing"), ("CHANGELOG", "changelog")):
        content[0] = re.sub(rf"\]\(((?:\.\./)*)\.\./{name}\.md", rf"](\g<1>{page_here}.md", content[0])


def unbroken(app: Any, page: str, content: list[str]) -> None:
    """Keep a mean and its interval on one line, in narrow tables too."""
    content[0] = content[0].replace(" ± ", "\u00a0±\u00a0")


def formula(self: Any, node: nodes.math | nodes.math_block) -> None:
    """Write a formula as MathML, which browsers draw without a program from the network."""
    display = {"display": "block"} if isinstance(node, nodes.math_block) else {}
    root = mathml_elements.math(xmlns="http://www.w3.org/1998/Math/MathML", **display)
    self.body.append(latex2mathml.parse_latex_math(root, node.astext()).toxml())
    raise nodes.SkipNode


def setup(app: Any) -> None:
    """Register what is above."""
    app.connect("include-read", from_the_root)
    app.connect("include-read", lambda app, path, page, content: to_the_root(app, page, content), priority=600)
    app.connect("source-read", to_the_root)
    app.connect("source-read", unbroken)
    app.add_html_math_renderer("mathml", (formula, None), (formula, None))
