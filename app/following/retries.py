"""Messages that could not be loaded, and when each is tried again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from app.backoff import backoff_seconds
from app.message import StateMessage
from app.message_errors import RetryableError
from app.state import RecordId, Snapshot

LONGEST_PAUSE_SECONDS = 30.0
# While a storage is away nothing loads. A pass ends after a few tries, so that a message that comes
# meanwhile does not wait for all of them, and it never goes through all of a log.
MOST_TRIES = 3
MOST_PENDING = 100


DELAYED = "delayed"


class Delayed(RetryableError):
    """The message would take time to load, and is not tried yet."""

    def __init__(self) -> None:
        super().__init__(DELAYED, "it is not cached, and the newest that is comes first")


@dataclass(frozen=True)
class Pending:
    """A message that is to be tried again at `next_try`, on the clock of `Retries`."""

    partition: int
    offset: int
    reason: str
    detail: str
    tries: int
    next_try: float

    def __str__(self) -> str:
        return f"partition {self.partition}, offset {self.offset}, {self.reason}: {self.detail}"


class Retries:
    """Bounds how often, and how many, messages are tried in one pass through them."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._pending: dict[RecordId, Pending] = {}
        self._pending_before: dict[RecordId, Pending] = {}
        self._due: Pending | None = None
        self._tries = 0

    @property
    def pending(self) -> list[Pending]:
        """The messages that did not load in the last pass, the newest first."""
        return list(self._pending.values())

    @property
    def pass_is_over(self) -> bool:
        """Whether this pass has to end."""
        return self._tries >= MOST_TRIES or len(self._pending) >= MOST_PENDING

    def begin_pass(self) -> None:
        self._pending_before, self._pending = self._pending, {}
        self._tries = 0
        # one a pass, for each may wait for a time-out
        self._due = min(
            (one for one in self._pending_before.values() if one.next_try <= self._now()),
            key=lambda one: one.next_try,
            default=None,
        )

    def attempt(self, message: StateMessage, load: Callable[[StateMessage], Snapshot]) -> Snapshot:
        """Load `message` if it is due.

        Raises:
            RetryableError: `load` does, or did the last time and its pause is not over.
            InvalidMessage: `load` does.
        """
        if known := self._pending.get(message.record_id):  # of this pass
            raise RetryableError(known.reason, known.detail)
        last = self._pending_before.get(message.record_id)
        if last and last.tries and last is not self._due:
            self._pending[message.record_id] = last
            raise RetryableError(last.reason, last.detail)
        try:
            return load(message)
        except RetryableError as error:
            self._tries += 1
            self._note(message, error, last.tries if last else 0)
            raise

    def _note(self, message: StateMessage, error: RetryableError, tries: int) -> None:
        pause = 0.0
        if not isinstance(error, Delayed):
            tries += 1
            pause = backoff_seconds(tries, LONGEST_PAUSE_SECONDS)
        self._pending[message.record_id] = Pending(
            message.partition,
            message.offset,
            error.reason,
            str(error),
            tries,
            self._now() + pause,
        )
