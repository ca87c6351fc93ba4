"""Which parts of which pages are generated, and from what."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from dev.docs.dashboard import dashboard
from dev.docs.metrics import metrics_tables

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "docs"

GENERATED: dict[str, Callable[[], str]] = {
    "metrics": metrics_tables,
}
# as a whole, by their path from the top
FILES: dict[str, Callable[[], str]] = {
    "deploy/grafana/dashboard.json": dashboard,
}
PART = re.compile(
    r"(?P<begin><!-- generated: (?P<name>.*?) -->\n).*?(?P<end>\n<!-- /generated -->)", re.DOTALL
)


def renewed(page: str) -> str:
    """Give the text of a page with its generated parts as they should be.

    Raises:
        KeyError: a part has a name that nothing generates.
    """
    return PART.sub(
        lambda part: f"{part['begin']}\n{GENERATED[part['name']]()}\n{part['end']}", page
    )
