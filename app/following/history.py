"""The last states served and messages refused, from memory and never from Kafka."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from datetime import datetime, timezone

from app.following.status import RefusedMessage
from app.state import Snapshot

# of a state's JSON; a longer one is truncated
MOST_CHARACTERS = 10_000


@dataclass(frozen=True)
class Served:
    """A state that was served.

    Attributes:
        json: the state as JSON text; the beginning of that where it is `truncated`.
        timestamp: of the message; None where it has none, as the initial value.
    """

    json: str
    truncated: bool
    version: str
    partition: int | None
    offset: int | None
    timestamp: datetime | None
    served_at: datetime


class History:
    """The last states served and the last messages refused, the newest first.

    Written by the consumer thread, read by any thread. `_lock` guards both lists.
    """

    def __init__(self, length: int) -> None:
        """
        Args:
            length: how many of each are kept.
        """
        self._length = length
        self._lock = threading.Lock()
        self._served: deque[Served] = deque(maxlen=length)
        self._refused: list[RefusedMessage] = []

    def note_served(self, snapshot: Snapshot) -> None:
        served = Served(
            snapshot.json[:MOST_CHARACTERS],
            len(snapshot.json) > MOST_CHARACTERS,
            snapshot.version,
            snapshot.partition,
            snapshot.offset,
            snapshot.sent_at,
            datetime.now(timezone.utc),
        )
        with self._lock:
            self._served.appendleft(served)

    def note_refused(self, refused: RefusedMessage) -> None:
        """Note it as newer than the others, but for those that come after it in its partition: the
        last valid message is looked for from the end."""
        with self._lock:
            # as most do, for whom the whole list would be looked through
            comes_by_itself = self._refused and self._refused[0].is_before(refused)
            index = 0 if comes_by_itself else len(self._refused)
            while index and not refused.is_before(self._refused[index - 1]):
                index -= 1
            self._refused.insert(index, refused)
            del self._refused[self._length :]

    @property
    def served(self) -> list[Served]:
        with self._lock:
            return list(self._served)

    @property
    def refused(self) -> list[RefusedMessage]:
        with self._lock:
            return list(self._refused)
