"""What becomes of the messages that are looked at: states, and what is counted by reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any

from app.following.event_log import Journal
from app.following.history import History
from app.following.status import Refused
from app.loaders.protocol import Loader, is_at_hand, load
from app.message import Message, StateMessage, parse_message
from app.message_errors import InvalidMessage, RetryableError
from app.state import Snapshot


class Verdicts:
    """For the consumer thread only.

    Attributes:
        topic_id: of the topic that messages come from.
    """

    def __init__(
        self,
        loader: Loader,
        journal: Journal,
        history: History,
        checkpoint: Callable[[], None],
    ) -> None:
        self._loader = loader
        self._history = history
        self._journal = journal
        self._checkpoint = checkpoint
        self._invalid_messages: Counter[str] = Counter()
        self._last_invalid: Refused | None = None
        self._failed_loads: Counter[str] = Counter()
        self.topic_id: str | None = None

    def judge(self, message: Message) -> StateMessage | None:
        """Parse `message`; None if it is not valid."""
        try:
            return StateMessage(
                **parse_message(message.value),
                partition=message.partition,
                offset=message.offset,
                timestamp=message.timestamp,
                topic_id=self.topic_id,
                checkpoint=self._checkpoint,
            )
        except InvalidMessage as error:
            self.refuse(message.partition, message.offset, error)
            return None

    def load(self, message: StateMessage) -> Snapshot:
        """
        Raises:
            InvalidMessage, RetryableError, Stopping: as app.loaders.protocol.load does.
        """
        with self._noting(message):
            return load(self._loader, message)

    def is_at_hand(self, message: StateMessage) -> bool:
        """
        Raises:
            InvalidMessage, RetryableError, Stopping: as app.loaders.protocol.is_at_hand does.
        """
        with self._noting(message):
            return is_at_hand(self._loader, message)

    @contextmanager
    def _noting(self, message: StateMessage) -> Iterator[None]:
        try:
            yield
        except InvalidMessage as error:
            self._failed_loads[error.reason] += 1
            self.refuse(message.partition, message.offset, error)
            raise
        except RetryableError as error:
            self._failed_loads[error.reason] += 1
            self._journal.pending(message.partition, message.offset, error.reason, str(error))
            raise

    def refuse(self, partition: int, offset: int, error: InvalidMessage) -> None:
        self._invalid_messages[error.reason] += 1
        refused = Refused(
            datetime.now(timezone.utc), self.topic_id, partition, offset, error.reason, str(error)
        )
        # who looks for the last valid message comes from the end
        if not (self._last_invalid and refused.is_before(self._last_invalid)):
            self._last_invalid = refused
        self._history.note_refused(refused)
        self._journal.invalid(
            partition,
            offset,
            error.reason,
            str(error),
            traceback_of=error.__cause__ if error.reason == "loader" else None,
        )

    def so_far(self) -> dict[str, Any]:
        """What Status has of it."""
        return {
            "invalid_messages": dict(self._invalid_messages),
            "last_invalid": self._last_invalid,
            "failed_loads": dict(self._failed_loads),
        }
