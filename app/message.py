"""What a valid message is: from a record's bytes to its fields."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn, Protocol

from marshmallow import EXCLUDE, Schema, ValidationError, fields


class Message(Protocol):
    """One Kafka record as received; `timestamp` is in milliseconds since the epoch."""

    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def value(self) -> bytes | None: ...


class NotServed(Exception):
    """A message that does not become the state.

    Attributes:
        reason: one word of a small fixed set, to count by.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(_spelt(detail))
        self.reason = _spelt(reason)


class InvalidMessage(NotServed, ValueError):
    """A message that cannot become the state."""


class MessageSchema(Schema):
    class Meta:
        unknown = EXCLUDE

    error_messages = {"type": "it is no JSON object"}  # noqa: RUF012  # marshmallow's own form

    message_id = fields.String(
        allow_none=True, error_messages={"invalid": "message_id is neither a string nor null"}
    )
    text = fields.String(
        allow_none=True, error_messages={"invalid": "text is neither a string nor null"}
    )
    state = fields.Raw(
        required=True, allow_none=True, error_messages={"required": "state is missing"}
    )


_SCHEMA = MessageSchema()


# below what Python's parser takes, which depends on its version and on who calls it: every
# instance must find the same messages valid
DEEPEST_NESTING = 900


def parse_message(value: bytes | None) -> dict[str, Any]:
    """Give what a record's value holds: its `state`, and `message_id` and `text` if there.

    Raises:
        InvalidMessage: with reason `tombstone`, `encoding`, `json` or `schema`.
    """
    if value is None:
        raise InvalidMessage("tombstone", "it has no value")
    try:
        text = value.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidMessage("encoding", f"not UTF-8 at byte {error.start}") from None
    document = parse_json(text)
    try:
        fields_: dict[str, Any] = _SCHEMA.load(document)
    except ValidationError as error:
        faults = [fault for faults in error.messages_dict.values() for fault in faults]
        raise InvalidMessage(
            "schema", f"{', '.join(faults)}; accepted is a JSON object with a state"
        ) from None
    return fields_


def parse_json(text: str) -> Any:
    """Parse RFC 8259 JSON: no NaN, no infinity, nothing that would become one.

    Raises:
        InvalidMessage: with reason `json`.
    """
    try:
        value = _DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        raise InvalidMessage("json", f"not JSON that can be served: {_bounded(error)}") from None
    if text.count("[") + text.count("{") > DEEPEST_NESTING:
        _require_shallow(value)
    return value


def canonical_json(value: Any) -> str:
    """Write a parsed value as compact ASCII, so that any string in it can be sent and logged."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _require_shallow(value: Any) -> None:
    level = [value]
    for _ in range(DEEPEST_NESTING + 1):
        containers = [inner for inner in level if isinstance(inner, (dict, list))]
        level = [
            child
            for inner in containers
            for child in (inner.values() if isinstance(inner, dict) else inner)
        ]
    if containers:
        raise InvalidMessage("json", f"nested more than {DEEPEST_NESTING} deep")


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError("a number too large for a float")
    return number


# json.loads would make one for each message
_DECODER = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite)


def _spelt(text: object) -> str:
    """As UTF-8 can have it, whatever a loader gives."""
    return str(text).encode(errors="backslashreplace").decode()


def _bounded(error: Exception) -> str:
    return str(error)[:100]
