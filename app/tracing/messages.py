"""The span of a message: from when it was received until it is served, or refused.

By the conventions for messaging, which are in development:
https://opentelemetry.io/docs/specs/semconv/messaging/kafka/
"""

from __future__ import annotations

import time
from collections.abc import Callable

from opentelemetry.trace import Span, SpanContext, SpanKind, StatusCode, Tracer

from app.tracing.context import has_parent, parent_of
from app.tracing.interface import NAMES, Headers, MessageSpan


class Message(MessageSpan):
    """Makes the span when it ends, so that a message that is skipped costs next to nothing."""

    def __init__(
        self,
        tracer: Tracer,
        note_served: Callable[[str, object, SpanContext], None],
        topic: str,
        partition: int,
        offset: int,
        headers: Headers,
    ) -> None:
        """
        Args:
            note_served: called with the version, the served object, and the span that is to be
                linked to.
        """
        self._tracer = tracer
        self._note_served = note_served
        self._topic = topic
        self._partition = partition
        self._offset = offset
        # parsed at once: they may be large, and the state's span is kept
        self._parent = parent_of(_trace_headers(headers))
        self._received_ns = time.time_ns()
        self._failed_loads = 0
        self._last_failure = ""

    def served(self, version: str, served: object) -> None:
        span = self._begin()
        self._note_served(version, served, span.get_span_context())
        span.end()

    def refused(self, reason: str) -> None:
        """End it where somebody traces the message: of others, a log may hold a hundred thousand,
        which a start goes through."""
        if not has_parent(self._parent):
            return
        span = self._begin()
        span.set_attribute("error.type", reason)
        span.set_status(StatusCode.ERROR)
        span.end()

    def put_off(self, reason: str) -> None:
        self._failed_loads += 1
        self._last_failure = reason

    def _begin(self) -> Span:
        attributes: dict[str, str | int] = {
            "messaging.system": "kafka",
            "messaging.operation.type": "process",
            "messaging.operation.name": "process",
            "messaging.destination.name": self._topic,
            "messaging.destination.partition.id": str(self._partition),
            "messaging.kafka.offset": self._offset,
        }
        if self._failed_loads:
            attributes["kafka_state.failed_loads"] = self._failed_loads
            attributes["kafka_state.last_failure"] = self._last_failure
        return self._tracer.start_span(
            f"process {self._topic}",
            self._parent,
            SpanKind.CONSUMER,
            attributes,
            start_time=self._received_ns,
        )


def _trace_headers(headers: Headers) -> dict[str, str]:
    """Of several of one name the last counts, as for Kafka's own clients (Headers.lastHeader)."""
    return {
        # what is no ASCII becomes what the standard does not allow
        name: value.decode("ascii", errors="replace")
        for name, value in headers
        if name in NAMES and value is not None
    }
