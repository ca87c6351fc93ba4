"""The one object that the consumer thread writes and every view reads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cached_property
from typing import Any

from app.tracing import NO_SPAN, MessageSpan

# of a message: topic id, partition, offset, timestamp
RecordId = tuple[str | None, int | None, int | None, int | None]


@dataclass(frozen=True)
class Snapshot:
    """What is served, and the message it came from.

    Attributes:
        json: the state as JSON text.
        timestamp: of the message, milliseconds since the epoch; like `partition` and `offset`
            None for the initial value, which comes from no message.
        topic_id: of the topic it was in; None where the brokers know none.
        served: what the loader made of the message; None for the initial value.
        span: of the message's way to being served.
    """

    json: str
    timestamp: int | None = None
    partition: int | None = None
    offset: int | None = None
    topic_id: str | None = None
    served: Any = field(default=None, compare=False, repr=False)
    span: MessageSpan = field(default=NO_SPAN, compare=False, repr=False)

    @property
    def record_id(self) -> RecordId:
        return self.topic_id, self.partition, self.offset, self.timestamp

    def is_older_than(self, other: Snapshot) -> bool:
        """By timestamp, then partition; the initial value is older than any message."""
        return _rank(self) < _rank(other)

    @cached_property
    def sent_at(self) -> datetime | None:
        """The timestamp as a date; None where it is missing (-1) or in no year that Python knows."""
        if self.timestamp is None or self.timestamp < 0:
            return None
        try:
            return datetime.fromtimestamp(self.timestamp / 1000, timezone.utc)
        except (OverflowError, ValueError, OSError):
            return None

    @cached_property
    def body(self) -> bytes:
        """The answer's body. All readers share it, so that a thousand slow ones hold one copy."""
        return f'{{"state":{self.json}}}'.encode()

    @cached_property
    def version(self) -> str:
        """Names the message, not its value, and is the same in every instance."""
        if self.offset is None:
            return "initial"
        place = f"{self.partition}-{self.offset}-{self.timestamp}"
        return f"{place}-{self.topic_id}" if self.topic_id else place


def _rank(snapshot: Snapshot) -> tuple[int, int]:
    if snapshot.timestamp is None or snapshot.partition is None:
        return -2, -1
    return snapshot.timestamp, snapshot.partition


class StateUnknown(Exception):
    """There is no state yet; the text says why."""


@dataclass(frozen=True)
class StateView:
    """What is known at one moment.

    Attributes:
        snapshot: None until there is a state.
        positions: by partition, the offset that is read next: all before it is in the snapshot.
        reason: why there is no state, or none of the log yet, if so.
    """

    snapshot: Snapshot | None
    positions: Mapping[int, int]
    reason: str

    def require_snapshot(self) -> Snapshot:
        """Give the current snapshot.

        Raises:
            StateUnknown: there is none yet.
        """
        if self.snapshot is None:
            raise StateUnknown(self.reason)
        return self.snapshot


class State:
    """The current state. Written by the consumer thread only, read by any thread.

    `_changed` guards all attributes; nothing blocks while holding it.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._view = StateView(None, {}, "the consumer has not started")
        self._closed = False

    def view(self) -> StateView:
        with self._changed:
            return self._view

    def read(self) -> Snapshot:
        """Give the current snapshot.

        Raises:
            StateUnknown: there is none yet.
        """
        return self.view().require_snapshot()

    def wait_until(self, is_met: Callable[[StateView], bool], timeout: float) -> StateView:
        """Give the view as soon as `is_met` of it, after `timeout` seconds, or at `close`."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or is_met(self._view), timeout)
            return self._view

    def publish(self, snapshot: Snapshot, positions: Mapping[int, int], reason: str = "") -> None:
        """Serve `snapshot`, which takes everything before `positions` into account.

        Args:
            reason: why that is nothing of the log yet, if so.
        """
        self._replace(StateView(snapshot, dict(positions), reason))

    def explain(self, reason: str) -> None:
        """Say what is being waited for, for those who ask while there is no state of the log."""
        view = self.view()
        self._replace(StateView(view.snapshot, view.positions, reason))

    def _replace(self, view: StateView) -> None:
        with self._changed:
            if view != self._view:
                self._view = view
                self._changed.notify_all()

    def close(self) -> None:
        """Let nobody wait any longer: this process gets no newer state."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def is_closed(self) -> bool:
        with self._changed:
            return self._closed
