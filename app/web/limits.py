"""How many requests may wait at once, and for how long."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator

from app.serving import Server, do_nothing
from app.state import State, StateView

# how soon it is noticed that a client has left
POLL_SECONDS = 2.0
# the limit where no server says how many threads it has
DEFAULT_LIMIT = 100

# Linux tells when the other side has closed; elsewhere only when the connection is gone
GONE = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR | select.POLLNVAL


class LimitExceeded(Exception):
    """A concurrency limit is reached."""


class ConcurrencyLimit:
    """Bounds how many requests hold a thread while they wait: fewer than there are threads.

    `_lock` guards `_taken` and `_limit`.
    """

    def __init__(self, limit: int = DEFAULT_LIMIT) -> None:
        self._lock = threading.Lock()
        self._taken = 0
        self._limit = limit

    def set_limit(self, limit: int) -> None:
        with self._lock:
            self._limit = limit

    @property
    def taken(self) -> int:
        with self._lock:
            return self._taken

    @contextlib.contextmanager
    def slot(self) -> Iterator[None]:
        """Hold one of the slots.

        Raises:
            LimitExceeded: all are taken.
        """
        with self._lock:
            if self._taken >= self._limit:
                raise LimitExceeded(f"the limit on waiting requests is reached: {self._limit}")
            self._taken += 1
        try:
            yield
        finally:
            with self._lock:
                self._taken -= 1


class WaitingRequests(ConcurrencyLimit):
    """Requests that wait for something newer than the state."""

    def __init__(self, state: State, limit: int | None = None) -> None:
        """
        Args:
            limit: None for half of the server's threads.
        """
        super().__init__(DEFAULT_LIMIT if limit is None else limit)
        self._state = state
        self._follows_threads = limit is None
        self._before_wait: Callable[[socket.socket], None] = do_nothing

    def serve_with(self, server: Server) -> None:
        """To be called before the first request."""
        self._before_wait = server.before_wait
        if self._follows_threads and server.threads is not None:
            self.set_limit(server.threads // 2)

    def wait_until(
        self,
        is_met: Callable[[StateView], bool],
        seconds: float,
        connection: socket.socket | None,
    ) -> StateView:
        """Give the view when `is_met` of it, after `seconds`, when the service ends, or when the
        client on `connection` has left (None where the server does not show it)."""
        deadline = time.monotonic() + seconds
        view = self._state.view()
        while (
            not is_met(view)
            and (left := deadline - time.monotonic()) > 0
            and self.is_awaited(connection)
        ):
            if connection:
                self._before_wait(connection)
            view = self._state.wait_until(is_met, min(left, POLL_SECONDS))
        return view

    def is_awaited(self, connection: socket.socket | None) -> bool:
        """Whether a newer state may come, and the client is still connected."""
        return not self._state.is_closed and not (connection and has_left(connection))


def has_left(connection: socket.socket) -> bool:
    """Whether the client has closed, or is gone."""
    poll = select.poll()
    try:
        poll.register(connection, GONE)
    except ValueError:  # it was closed here meanwhile
        return True
    return bool(poll.poll(0))
