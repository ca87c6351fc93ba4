"""The files that are written from the code, wholly or in part."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dev.docs.dashboard import dashboard
from dev.docs.metrics import metrics

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Generated:
    """
    Attributes:
        path: of the file, from the top of the clone.
        write: gives the text that is generated.
        part: the name in the markers around it, `<!-- generated: NAME -->` and
            `<!-- /generated -->`; None where it is the whole file.
    """

    path: str
    write: Callable[[], str]
    part: str | None = None

    @property
    def file(self) -> Path:
        return ROOT / self.path

    def is_current(self) -> bool:
        return self.file.is_file() and self.file.read_text(encoding="utf-8") == self.renewed()

    def renewed(self) -> str:
        """Give the text of the file as it is to be.

        Raises:
            ValueError: the file has not both markers once.
        """
        if self.part is None:
            return self.write()
        marked = re.compile(
            rf"(<!-- generated: {re.escape(self.part)} -->\n).*?(<!-- /generated -->)", re.DOTALL
        )
        text = self.file.read_text(encoding="utf-8")
        renewed, parts = marked.subn(lambda marks: f"{marks[1]}\n{self.write()}\n{marks[2]}", text)
        if parts != 1:
            raise ValueError(
                f"{self.path} has {parts} parts between '<!-- generated: {self.part} -->' and "
                "'<!-- /generated -->', each on a line of its own; wanted is one"
            )
        return renewed


GENERATED = (
    Generated("docs/metrics.md", metrics, part="metrics"),
    Generated("deploy/grafana/dashboard.json", dashboard),
)
