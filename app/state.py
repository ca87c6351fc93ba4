"""The one object that the consumer thread writes and every view reads."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Snapshot:
    """What is served, and the message it came from.

    Attributes:
        json: the state as JSON text.
        timestamp: of the message, milliseconds since the epoch; like `partition` and `offset`
            None for the initial value, which comes from no message.
        topic_id: of the topic it was in; None where the brokers know none.
    """

    json: str
    timestamp: int | None = None
    partition: int | None = None
    offset: int | None = None
    topic_id: str | None = None

    @cached_property
    def body(self) -> bytes:
        """What is sent: one for all, so that a thousand slow readers hold no thousand copies."""
        return f'{{"state":{self.json}}}'.encode()


class StateUnknown(Exception):
    """Nothing is known yet; its text says why."""


class State:
    """The current snapshot. Written by the consumer thread only, read by any thread.

    `_lock` guards both attributes; nothing blocks while holding it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._snapshot: Snapshot | None = None
        self._reason = "the consumer has not started"

    def read(self) -> Snapshot:
        """Give the current snapshot.

        Raises:
            StateUnknown: there is none yet.
        """
        with self._lock:
            if self._snapshot is None:
                raise StateUnknown(self._reason)
            return self._snapshot

    def publish(self, snapshot: Snapshot) -> None:
        with self._lock:
            self._snapshot = snapshot

    def explain(self, reason: str) -> None:
        """Say what is being waited for, for those who ask while nothing is known."""
        with self._lock:
            self._reason = reason
