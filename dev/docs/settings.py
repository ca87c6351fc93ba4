"""Tables of settings, from where each is declared."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from marshmallow import fields

from app.settings.environment import DESCRIPTION, kinds_of
from app.settings.kinds import ACCEPTED, Size

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

UNITS = ((2**30, "GiB"), (2**20, "MiB"))


def settings_table(declared: type[DataclassInstance]) -> str:
    """Give a row for each setting: the variable, what is accepted, the default, the meaning."""
    head = ["| variable | accepted | default | meaning |", "|---|---|---|---|"]
    return "\n".join([*head, *_rows(declared)])


def _rows(declared: type[DataclassInstance]) -> Iterator[str]:
    defaults = {field.name: field.default for field in dataclasses.fields(declared)}
    for attribute, kind in kinds_of(declared).items():
        accepted = re.sub("^accepted (is|are) ", "", kind.metadata[ACCEPTED])
        default = _shown(defaults[attribute], kind)
        # a pipe would end the cell
        meaning = kind.metadata[DESCRIPTION].replace("|", r"\|")
        yield f"| `{kind.data_key}` | {accepted} | {default} | {meaning} |"


def _shown(default: Any, kind: fields.Field[Any]) -> str:
    if default is dataclasses.MISSING:
        return "required"
    if default in (None, ()):
        return "none"
    if isinstance(kind, Size):
        factor, unit = next((factor, unit) for factor, unit in UNITS if default % factor == 0)
        return f"`{default // factor}{unit}`"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"
