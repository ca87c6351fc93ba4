"""Which messages are valid, and what becomes of those that are not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any

from app.following.event_log import EventLog
from app.following.history import History
from app.following.status import RefusedMessage
from app.loaders.protocol import Loader, is_cached, load
from app.message import StateMessage, parse_message
from app.message_errors import InvalidMessage, RetryableError
from app.state import Snapshot
from app.topic_log import Record
from app.tracing import NO_SPAN, MessageSpan

# one of these that is read again, as after a lost connection, is not counted again
MOST_KNOWN_REFUSALS = 10_000
# of a record that was received now
BeginSpan = Callable[[Record], MessageSpan]


def no_span(record: Record) -> MessageSpan:
    return NO_SPAN


class Validation:
    """Validates and loads messages, and counts those that fail. For the consumer thread only.

    Attributes:
        topic_id: of the topic that messages come from.
    """

    def __init__(
        self,
        loader: Loader,
        event_log: EventLog,
        history: History,
        checkpoint: Callable[[], None],
        keeps_values: bool = False,
        begin_span: BeginSpan = no_span,
    ) -> None:
        """
        Args:
            keeps_values: whether the bytes of valid messages are needed later.
        """
        self._loader = loader
        self._history = history
        self._event_log = event_log
        self._checkpoint = checkpoint
        self._keeps_values = keeps_values
        self._begin_span = begin_span
        self._invalid_messages: Counter[str] = Counter()
        self._last_invalid: RefusedMessage | None = None
        self._known_refusals: dict[object, None] = {}
        self._failed_loads: Counter[str] = Counter()
        self.topic_id: str | None = None

    def validate(self, record: Record) -> StateMessage | None:
        """Parse `record`; None if it is not valid."""
        span = self._begin_span(record)
        try:
            return StateMessage(
                **parse_message(record.value),
                partition=record.partition,
                offset=record.offset,
                timestamp=record.timestamp,
                topic_id=self.topic_id,
                value=record.value if self._keeps_values else None,
                checkpoint=self._checkpoint,
                span=span,
            )
        except InvalidMessage as error:
            span.refused(error.reason)
            self.refuse(record.partition, record.offset, error)
            return None

    def load(self, message: StateMessage) -> Snapshot:
        """Make of a message what is served.

        Raises:
            InvalidMessage, RetryableError, Stopping: as app.loaders.protocol.load does.
        """
        with self._noting(message):
            return load(self._loader, message)

    def is_cached(self, message: StateMessage) -> bool:
        """Whether a message is loaded without delay.

        Raises:
            InvalidMessage, RetryableError, Stopping: as app.loaders.protocol.is_cached does.
        """
        with self._noting(message):
            return is_cached(self._loader, message)

    @contextmanager
    def _noting(self, message: StateMessage) -> Iterator[None]:
        try:
            yield
        except InvalidMessage as error:
            self._failed_loads[error.reason] += 1
            message.span.refused(error.reason)
            self.refuse(message.partition, message.offset, error)
            raise
        except RetryableError as error:
            self._failed_loads[error.reason] += 1
            message.span.put_off(error.reason)
            self._event_log.pending(message.partition, message.offset, error.reason, str(error))
            raise

    def refuse(self, partition: int, offset: int, error: InvalidMessage) -> None:
        """Note a message that is not valid, once."""
        refusal = self.topic_id, partition, offset, error.reason, str(error)
        if refusal in self._known_refusals:
            return
        self._known_refusals[refusal] = None
        if len(self._known_refusals) > MOST_KNOWN_REFUSALS:
            del self._known_refusals[next(iter(self._known_refusals))]
        self._invalid_messages[error.reason] += 1
        refused = RefusedMessage(
            datetime.now(timezone.utc), self.topic_id, partition, offset, error.reason, str(error)
        )
        # who looks for the last valid message comes from the end
        if not (self._last_invalid and refused.is_before(self._last_invalid)):
            self._last_invalid = refused
        self._history.note_refused(refused)
        self._event_log.invalid(
            partition,
            offset,
            error.reason,
            str(error),
            traceback_of=error.__cause__ if error.reason == "loader" else None,
        )

    def counts(self) -> dict[str, Any]:
        """Give the members of `Status` that are counted here."""
        return {
            "invalid_messages": dict(self._invalid_messages),
            "last_invalid": self._last_invalid,
            "failed_loads": dict(self._failed_loads),
        }
