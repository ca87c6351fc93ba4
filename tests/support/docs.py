"""What the documentation says."""

from __future__ import annotations

import re

from tests.support.processes import ROOT


def text_of(page: str) -> str:
    """A page of docs/, without comments."""
    return re.sub("<!--.*?-->", "", (ROOT / "docs" / f"{page}.md").read_text(), flags=re.DOTALL)


def section(page: str, title: str) -> str:
    """What is below a heading, up to the next one of any level.

    Raises:
        KeyError: the page has no such heading.
    """
    parts = re.split(r"^#+ (.*)\n", text_of(page), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))[title]


def table_rows(page: str, title: str) -> list[list[str]]:
    """The cells of the rows of all tables in a section, without those of their heads."""
    lines = section(page, title).splitlines()
    rows = [
        line
        for line, after in zip(lines, [*lines[1:], ""], strict=True)
        if line.startswith("|") and "|---" not in line + after
    ]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
