"""Declares settings, and reads them from the environment; a fault is one line that names it."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from marshmallow import EXCLUDE, Schema, ValidationError, fields

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Declared = TypeVar("Declared", bound=DataclassInstance)

# how similar a name has to be to a known one to be asked about, 0 to 1
LIKENESS = 0.8

KIND, DESCRIPTION = "kind", "description"


class SettingsError(ValueError):
    """A setting that makes no sense; the text is one line that names the variable."""


def setting(
    variable: str,
    kind: fields.Field[Any],
    description: str,
    default: Any = dataclasses.MISSING,
    *,
    is_secret: bool = False,
) -> Any:
    """Declare an attribute of a dataclass that a variable of the environment sets.

    Args:
        kind: which values are accepted.
        default: without it the variable is required.
        is_secret: whether its value is never shown.
    """
    kind.data_key = variable
    kind.required = default is dataclasses.MISSING
    kind.metadata = {**kind.metadata, DESCRIPTION: description}
    return dataclasses.field(default=default, repr=not is_secret, metadata={KIND: kind})


def fault(variable: str, accepted: str) -> ValidationError:
    """Give the error of a value that is accepted by itself, but not beside the others."""
    return ValidationError({variable: [accepted]})


def kinds_of(declared: type[DataclassInstance]) -> dict[str, fields.Field[Any]]:
    """Give the kinds of these settings, by attribute; each knows its variable."""
    return {
        field.name: field.metadata[KIND]
        for field in dataclasses.fields(declared)
        if KIND in field.metadata
    }


def variables(declared: type[DataclassInstance]) -> dict[str, str]:
    """Give the descriptions of these settings, by variable."""
    return {kind.data_key or "": kind.metadata[DESCRIPTION] for kind in kinds_of(declared).values()}


def read(
    declared: type[Declared],
    environ: Mapping[str, str],
    check: Callable[[Declared, Collection[str]], None] = lambda settings, given: None,
) -> Declared:
    """Read these settings; a variable that is empty counts as not set.

    Args:
        check: called with the settings and the names of the variables that are set; raises a
            `fault`.

    Raises:
        SettingsError: a value is missing or makes no sense.
    """
    kinds = kinds_of(declared)
    secrets = {
        f.metadata[KIND].data_key
        for f in dataclasses.fields(declared)
        if KIND in f.metadata and not f.repr
    }
    given = {name: value for name, value in environ.items() if value}
    try:
        settings = declared(**Schema.from_dict(kinds)(unknown=EXCLUDE).load(given))
        check(settings, given.keys())
    except ValidationError as error:
        raise SettingsError(
            "; ".join(
                f"{name} is {'(hidden)' if name in secrets else repr(given[name])}: {messages[0]}"
                if name in given
                else f"{name} is not set: {messages[0]}"
                for name, messages in error.messages_dict.items()
            )
        ) from error
    return settings


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
