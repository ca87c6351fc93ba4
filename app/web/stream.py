"""The stream's events (Server-Sent Events, of the HTML standard)."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator

from app.following.status import Status
from app.state import StateView
from app.web.limits import WaitingRequests
from app.web.schemas import StreamStatusSchema

# by it a reader knows that the stream lives; and proxies close what is silent for a minute
HEARTBEAT_SECONDS = 5.0
# between two looks at how following goes
STATUS_SECONDS = 1.0
RETRY_MS = 1000

# how long all streams share one event of the status
CACHE_SECONDS = 0.2

_STATUS = StreamStatusSchema()


class StatusEvents:
    """The `status` event, written once for all streams.

    For any thread: `_written` is replaced as a whole.
    """

    def __init__(self, status: Callable[[], Status]) -> None:
        self._status = status
        self._written = (-CACHE_SECONDS, "")

    def newest(self) -> str:
        at, event = self._written
        now = time.monotonic()
        if now >= at + CACHE_SECONDS:
            status = json.dumps(_STATUS.dump(self._status()), separators=(",", ":"))
            event = f"event: status\ndata: {status}\n\n"
            self._written = now, event
        return event


class Stream:
    """What one reader is told: the state and each newer one, and how following goes as often as
    that changes, but once a second at most.

    A reader who is slow gets the newest when it is ready for it, and not those between.
    """

    def __init__(
        self,
        waiting: WaitingRequests,
        connection: socket.socket | None,
        seen: str | None,
        status_events: StatusEvents | None,
        is_accepted: Callable[[], bool] = lambda: True,
    ) -> None:
        """
        Args:
            seen: the version that the reader has already.
            status_events: None for a reader of states only.
            is_accepted: whether the reader's token still is; else the stream ends.
        """
        self._is_accepted = is_accepted
        self._waiting = waiting
        self._connection = connection
        self._seen = seen
        self._status_events = status_events
        self._last_status = ""
        self._status_checked_at = -STATUS_SECONDS

    def __iter__(self) -> Iterator[str]:
        yield f"retry: {RETRY_MS}\n\n"
        if state := self._wait_for_state(0):
            yield state
        while self._is_awaited():
            event = self._next_event()
            if not self._is_accepted():
                return
            yield event

    def _next_event(self) -> str:
        silent_until = time.monotonic() + HEARTBEAT_SECONDS
        while (left := silent_until - time.monotonic()) > 0 and self._is_awaited():
            seconds = min(left, STATUS_SECONDS) if self._status_events else left
            if event := self._status_event() or self._wait_for_state(seconds):
                return event
        return ":\n\n"

    def _is_awaited(self) -> bool:
        return self._is_accepted() and self._waiting.is_awaited(self._connection)

    def _wait_for_state(self, seconds: float) -> str | None:
        """Give the event as text, so that a slow reader keeps no served object alive."""
        view = self._waiting.wait_until(self._is_newer, seconds, self._connection)
        if view.snapshot is None or not self._is_newer(view):
            return None
        self._seen = view.snapshot.version
        return f"event: state\nid: {self._seen}\ndata: {view.snapshot.body.decode()}\n\n"

    def _is_newer(self, view: StateView) -> bool:
        return view.snapshot is not None and view.snapshot.version != self._seen

    def _status_event(self) -> str | None:
        now = time.monotonic()
        if self._status_events is None or now < self._status_checked_at + STATUS_SECONDS:
            return None
        self._status_checked_at = now
        event = self._status_events.newest()
        if event == self._last_status:
            return None
        self._last_status = event
        return event
