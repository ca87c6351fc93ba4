"""The shapes of what is asked and answered, for the views and for their description."""

from __future__ import annotations

import json
import re
from importlib.metadata import version as version_of
from typing import Any

from marshmallow import EXCLUDE, Schema, ValidationError, fields, validate

from app.following.history import MOST_CHARACTERS, Served
from app.following.status import Status

PARTITIONS_SHOWN = 6

# no topic has more, and as many digits fit into what Kafka's protocol has for them
OFFSET = "([0-9]{1,9}):([0-9]{1,18})"
OFFSET_ACCEPTED = "accepted is PARTITION:OFFSET, two whole numbers such as 0:41"


class OffsetField(fields.Field[tuple[int, int]]):
    """`P:O`, a partition and an offset in it."""

    def _deserialize(
        self, value: Any, attr: str | None, data: Any, **kwargs: Any
    ) -> tuple[int, int]:
        match = re.fullmatch(OFFSET, value)
        if not match:
            raise ValidationError(OFFSET_ACCEPTED)
        return int(match[1]), int(match[2])


class StateQuery(Schema):
    class Meta:
        unknown = EXCLUDE

    min_offset = fields.List(
        OffsetField(metadata={"type": "string", "pattern": f"^{OFFSET}$"}),
        metadata={
            "description": "Read your writes: wait until the partition has been read through the "
            "offset, as PARTITION:OFFSET. Once for each partition.",
            "example": ["0:41"],
        },
    )


class StateHeaders(Schema):
    if_none_match = fields.String(
        data_key="If-None-Match",
        metadata={
            "description": "The ETag of the state that is known already: 304 if it is current."
        },
    )
    prefer = fields.String(
        data_key="Prefer",
        metadata={
            "description": "`wait=N` (RFC 7240): wait up to N seconds, at most 45, for a state "
            "other than the one of If-None-Match, or for min_offset.",
            "example": "wait=1",
        },
    )


class StreamQuery(Schema):
    class Meta:
        unknown = EXCLUDE

    events = fields.String(
        validate=validate.Equal("state", error="accepted is {other}, for those events alone"),
        metadata={"description": "`state` leaves out the events of `status`.", "example": "state"},
    )


class StreamHeaders(Schema):
    last_event_id = fields.String(
        data_key="Last-Event-ID",
        metadata={"description": "The id of the last event seen, which is not sent again."},
    )


class HelloSchema(Schema):
    message = fields.String(required=True)


class StateSchema(Schema):
    state = fields.Raw(
        required=True, allow_none=True, metadata={"description": "any JSON value", "example": 77}
    )


class ProgressSchema(Schema):
    """A partition's position and end, the lag between them, and why it cannot be read, if so."""

    position = fields.Integer(required=True, allow_none=True)
    end = fields.Integer(required=True, allow_none=True)
    lag = fields.Integer(required=True, allow_none=True)
    error = fields.String(required=True, allow_none=True)


class LastErrorSchema(Schema):
    at = fields.AwareDateTime(required=True)
    error = fields.String(required=True)


class RefusedSchema(Schema):
    """An invalid message."""

    at = fields.AwareDateTime(required=True)
    partition = fields.Integer(required=True)
    offset = fields.Integer(required=True)
    reason = fields.String(required=True)
    detail = fields.String(required=True)


class ServedSchema(Schema):
    """A state that was served, and the message it was from."""

    state = fields.Method(
        "_state",
        required=True,
        allow_none=True,
        metadata={
            "description": "any JSON value; where its JSON has more than "
            f"{MOST_CHARACTERS} characters, the beginning of that as a text, and `truncated` true"
        },
    )
    truncated = fields.Boolean(
        required=True, metadata={"description": "whether `state` is but the beginning"}
    )
    version = fields.String(required=True)
    partition = fields.Integer(required=True, allow_none=True)
    offset = fields.Integer(required=True, allow_none=True)
    timestamp = fields.AwareDateTime(required=True, allow_none=True)
    served_at = fields.AwareDateTime(required=True)

    def _state(self, served: Served) -> Any:
        return served.json if served.truncated else json.loads(served.json)


class HistorySchema(Schema):
    """The newest first."""

    states = fields.List(fields.Nested(ServedSchema), attribute="served", required=True)
    refused = fields.List(fields.Nested(RefusedSchema), required=True)


class PendingSchema(Schema):
    """A message that could not be loaded now, and is retried."""

    partition = fields.Integer(required=True)
    offset = fields.Integer(required=True)
    reason = fields.String(required=True)
    detail = fields.String(required=True)
    tries = fields.Integer(required=True)


_PENDING = PendingSchema()


class StatusSchema(Schema):
    version = fields.Constant(
        version_of("kafka-state"), required=True, metadata={"description": "of the service"}
    )
    topic = fields.String(required=True)
    topic_id = fields.String(required=True, allow_none=True)
    group_id = fields.String(
        required=True,
        allow_none=True,
        metadata={
            "description": "what positions are committed under; null where they are not committed"
        },
    )
    client = fields.String(required=True)
    created_topic_at = fields.AwareDateTime(
        required=True,
        allow_none=True,
        metadata={"description": "when this worker has created the topic; null if it was there"},
    )
    connected_since = fields.AwareDateTime(required=True, allow_none=True)
    partitions = fields.Dict(
        keys=fields.String(), values=fields.Nested(ProgressSchema), required=True
    )
    stale_seconds = fields.Float(
        required=True,
        metadata={
            "description": "for how long the log's end has not been confirmed for every partition; "
            "0 while it is"
        },
    )
    cached = fields.Boolean(
        required=True,
        metadata={
            "description": "whether the state is from the disk, for the log was not read yet"
        },
    )
    cache_error = fields.String(
        required=True,
        allow_none=True,
        metadata={"description": "why the state cannot be kept on the disk now; null if it can"},
    )
    updates = fields.Integer(required=True)
    invalid_messages = fields.Dict(keys=fields.String(), values=fields.Integer(), required=True)
    last_invalid = fields.Nested(RefusedSchema, required=True, allow_none=True)
    failed_loads = fields.Dict(keys=fields.String(), values=fields.Integer(), required=True)
    pending = fields.List(fields.Nested(PendingSchema), required=True)
    partition_errors = fields.Dict(keys=fields.String(), values=fields.Integer(), required=True)
    fetches = fields.Integer(required=True)
    skipped_messages = fields.Integer(required=True)
    connections = fields.Integer(required=True)
    failures = fields.Integer(required=True)
    last_error = fields.Nested(LastErrorSchema, required=True, allow_none=True)


_PROGRESS = ProgressSchema()


def _shown_partitions(status: Status) -> list[dict[str, Any]]:
    """Those in trouble first, then those that are the furthest behind."""
    worst = sorted(
        status.partitions.items(), key=lambda it: (it[1].error is None, -(it[1].lag or 0), it[0])
    )[:PARTITIONS_SHOWN]
    return [{"partition": number, **_PROGRESS.dump(progress)} for number, progress in worst]


class StreamStatusSchema(Schema):
    """How following goes, in short: whether it is connected, and why not; how many messages are
    between positions and ends, and of which partitions, those in trouble and far behind first;
    how many of them cannot be read; for how long the ends have not been confirmed; how many
    messages were refused, and the last of them; the newest of those that are to be tried again."""

    topic = fields.String()
    connected = fields.Boolean(attribute="is_connected")
    reason = fields.String()
    lag = fields.Integer()
    partitions = fields.Function(_shown_partitions)
    partition_count = fields.Function(lambda status: len(status.partitions))
    partitions_in_trouble = fields.Function(lambda status: len(status.unreadable))
    stale_seconds = fields.Function(lambda status: int(status.stale_seconds))
    refused = fields.Function(lambda status: sum(status.invalid_messages.values()))
    last_refused = fields.Nested(RefusedSchema, attribute="last_invalid")
    pending = fields.Function(
        lambda status: _PENDING.dump(status.pending[0]) if status.pending else None
    )


class ProbeSchema(Schema):
    status = fields.String(required=True)


class ReadySchema(ProbeSchema):
    """`without` has the partitions that cannot be read now, if there are any, and why; `cached`
    says why the state is from the disk, if it is."""

    without = fields.Dict(keys=fields.String(), values=fields.String())
    cached = fields.String()


class ProblemSchema(Schema):
    """RFC 9457."""

    type = fields.String(required=True)
    title = fields.String(required=True)
    status = fields.Integer(required=True)
    detail = fields.String(required=True)
