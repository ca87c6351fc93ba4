"""The site of the documentation, from the pages as they are: `make docs`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "kafka-state"
html_title = project
extensions = ["myst_parser"]
html_theme = "furo"
html_theme_options = {"top_of_page_buttons": []}
html_copy_source = False
html_show_sphinx = False

# the source folder is the project's, so that a link that works on a forge works here
root_doc = "README"
include_patterns = ["*.md", "docs/*.md", "bench/*.md", "bench/growth/*.md", "examples/**/*.md"]
exclude_patterns = [".*", "build", "dev", "tests", "app", "**/__pycache__"]
html_extra_path = ["index.html"]

myst_heading_anchors = 3
# a console block has commands and their output, and JSON may be cut off by an ellipsis
highlight_language = "none"
suppress_warnings = ["misc.highlighting_failure"]
nitpicky = True


def add_navigation(app: Sphinx, name: str, source: list[str]) -> None:
    """List the pages at the side: first those that the README's last section does, in its order."""
    if name == root_doc:
        listed = re.findall(r"\]\(([\w/]+)\.md\)", source[0].partition("\n## More\n")[2])
        others = sorted(app.env.found_docs - {*listed, root_doc})
        pages = "\n".join([*listed, *others])
        source[0] += f"\n```{{toctree}}\n:hidden:\n\n{pages}\n```\n"


def setup(app: Sphinx) -> None:
    app.connect("source-read", add_navigation)
