"""From a record's bytes to a valid message."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from marshmallow import EXCLUDE, Schema, ValidationError, fields

from app.message_errors import InvalidMessage
from app.state import RecordId
from app.strict_json import parse_json
from app.tracing import NO_SPAN, MessageSpan


class Stopping(BaseException):
    """What `checkpoint` raises. Not an Exception, which a loader might catch."""


def no_checkpoint() -> None:
    """Do nothing: for a load outside the consumer thread."""


@dataclass(frozen=True)
class StateMessage:
    """A valid message.

    Attributes:
        state: any JSON value, as Python has it.
        timestamp: milliseconds since the epoch.
        topic_id: None where the brokers know none.
        value: the bytes that it was parsed from; None unless the state is kept on the disk.
        checkpoint: to be called now and then by a loader that takes longer than a few seconds: it
            shows that the thread is alive, and raises Stopping when it is to end.
        span: of its way to being served.
    """

    state: Any
    message_id: str | None = None
    text: str | None = None
    partition: int = 0
    offset: int = 0
    timestamp: int = 0
    topic_id: str | None = None
    value: bytes | None = field(default=None, repr=False)
    checkpoint: Callable[[], None] = no_checkpoint
    span: MessageSpan = field(default=NO_SPAN, compare=False, repr=False)

    @property
    def record_id(self) -> RecordId:
        return self.topic_id, self.partition, self.offset, self.timestamp


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
    try:
        document = parse_json(text)
    except ValueError as error:
        raise InvalidMessage("json", str(error)) from None
    try:
        fields_: dict[str, Any] = _SCHEMA.load(document)
    except ValidationError as error:
        faults = [fault for faults in error.messages_dict.values() for fault in faults]
        raise InvalidMessage(
            "schema", f"{', '.join(faults)}; accepted is a JSON object with a state"
        ) from None
    return fields_
