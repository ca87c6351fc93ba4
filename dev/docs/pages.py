"""Which parts of which pages are generated, and from what."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from app.server.settings import ServerSettings
from app.settings.model import ModelSettings
from app.settings.security import SecuritySettings
from app.settings.settings import Settings
from dev.docs.dashboard import dashboard
from dev.docs.metrics import metrics_tables
from dev.docs.settings import settings_table

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "docs"


def make_table() -> str:
    """Give a row for each command of `make`, as `make help` describes it."""
    described = re.findall(r"^([a-z-]+):.*?## (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    rows = [f"| `make {name}` | {what} |" for name, what in described]
    return "\n".join(["| command | what it does |", "|---|---|", *rows])


GENERATED: dict[str, Callable[[], str]] = {
    "commands of make": make_table,
    "settings": lambda: settings_table(Settings),
    "settings of TLS and SASL": lambda: settings_table(SecuritySettings),
    "settings of models": lambda: settings_table(ModelSettings),
    "settings of gunicorn": lambda: settings_table(ServerSettings),
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
