"""How variables of the environment are read: what makes no sense is one line that names it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from decimal import Decimal
from typing import Any

from marshmallow import Schema, ValidationError, fields, validate

LONGEST_MS = 2**31 - 1  # what Kafka's protocol has room for

# 1 GB and 1 GiB, and Kubernetes' 1G and 1Gi
SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([kmgt])(i?)b?", re.IGNORECASE | re.ASCII)
POWERS = {"k": 1, "m": 2, "g": 3, "t": 4}

# how alike two names have to be, 0 to 1; KAFKA_HEAP_OPTS and what Kubernetes sets are like none
LIKENESS = 0.8


class SettingsError(ValueError):
    """A setting that makes no sense; its text is one line that names the variable."""


def read(schema: Schema, environ: Mapping[str, str], secrets: Collection[str] = ()) -> Any:
    """Load the variables that `schema` names; one that is empty counts as not set.

    Raises:
        SettingsError: a value is missing or makes no sense; one of `secrets` is not shown.
    """
    given = {name: value for name, value in environ.items() if value}
    try:
        return schema.load(given)
    except ValidationError as error:
        raise SettingsError(
            "; ".join(
                f"{name} is {'(hidden)' if name in secrets else repr(given[name])}: {messages[0]}"
                if name in given
                else f"{name} is not set: {messages[0]}"
                for name, messages in error.messages_dict.items()
            )
        ) from error


def one_of(*choices: str) -> validate.OneOf:
    return validate.OneOf(choices, error="accepted are {choices}")


def milliseconds(
    variable: str, default: int, least: int = 0, most: int = LONGEST_MS
) -> fields.Integer:
    return whole_number(variable, "milliseconds", default, least, most)


class _Size(fields.Integer):
    """A number of bytes, with a unit or without."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> int:
        match = SIZE.fullmatch(value)
        if match:
            number, unit, binary = match.groups()
            value = round(Decimal(number) * (1024 if binary else 1000) ** POWERS[unit.lower()])
        return super()._deserialize(value, attr, data, **kwargs)


def size(variable: str, default: int, least: int, most: int) -> fields.Integer:
    accepted = f"accepted is a size such as 500MB, 1GiB or a number of bytes, {least} to {most}"
    return _Size(
        load_default=default,
        data_key=variable,
        validate=validate.Range(min=least, max=most, error=accepted),
        error_messages={"invalid": accepted},
    )


def misspelt(names: Iterable[str], known: Collection[str], aliases: Mapping[str, str]) -> list[str]:
    """A line for each name that is not known and is like one that is.

    Args:
        aliases: what other programs call the same, and what it is called here.
    """
    lines = []
    for name in sorted(set(names) - set(known)):
        meant = aliases.get(name) or next(
            iter(difflib.get_close_matches(name, known, 1, LIKENESS)), None
        )
        if meant:
            lines.append(f"{name} is not known and has no effect: did you mean {meant}?")
    return lines


def whole_number(
    variable: str, unit: str | None, default: int | None, least: int, most: int
) -> fields.Integer:
    of_unit = f" of {unit}" if unit else ""
    accepted = f"accepted is a whole number{of_unit}, {least} to {most}"
    return fields.Integer(
        load_default=default,
        data_key=variable,
        validate=validate.Range(min=least, max=most, error=accepted),
        error_messages={"invalid": accepted},
    )
