"""How variables of the environment are read: what makes no sense is one line that names it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from marshmallow import Schema, ValidationError, fields, validate

LONGEST_MS = 2**31 - 1  # what Kafka's protocol has room for


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


def whole_number(
    variable: str, unit: str, default: int | None, least: int, most: int
) -> fields.Integer:
    accepted = f"accepted is a whole number of {unit}, {least} to {most}"
    return fields.Integer(
        load_default=default,
        data_key=variable,
        validate=validate.Range(min=least, max=most, error=accepted),
        error_messages={"invalid": accepted},
    )
