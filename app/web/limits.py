"""Requests that wait, for something newer or for their client: who may, and for how long."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator

from app.state import Knowledge, State

# how soon it is noticed that a client has left
LOOK_SECONDS = 2.0
# where no server says how many threads it has
SEATS = 100

# Linux tells when the other side has closed; elsewhere only when the connection is gone
GONE = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR | select.POLLNVAL


class NoSeat(Exception):
    """As many requests wait as may."""


class Seats:
    """Each request that waits holds a thread, so that they need seats, fewer than threads.

    `_lock` guards `_taken`. `seats` is set before the first request.

    Attributes:
        seats: how many may wait at once.
    """

    def __init__(self, seats: int | None = None) -> None:
        self._lock = threading.Lock()
        self._taken = 0
        self.seats = SEATS if seats is None else seats

    @property
    def taken(self) -> int:
        with self._lock:
            return self._taken

    @contextlib.contextmanager
    def seat(self) -> Iterator[None]:
        """Be one of those who wait.

        Raises:
            NoSeat: there are `seats` of them already.
        """
        with self._lock:
            if self._taken >= self.seats:
                raise NoSeat(f"as many requests are waiting as may: {self.seats}")
            self._taken += 1
        try:
            yield
        finally:
            with self._lock:
                self._taken -= 1


class WaitingRoom(Seats):
    """Those who wait for something newer.

    Attributes:
        give_time: told that the request on this socket waits by intention, so that a server who
            bounds how long an answer takes counts anew. Set before the first request.
    """

    def __init__(self, state: State, seats: int | None) -> None:
        super().__init__(seats)
        self._state = state
        self.give_time: Callable[[socket.socket], None] = lambda _: None

    def wait_until(
        self,
        is_met: Callable[[Knowledge], bool],
        seconds: float,
        connection: socket.socket | None,
    ) -> Knowledge:
        """Give what is known when `is_met` of it, after `seconds`, at the service's end, or when
        the client on `connection` (None where the server shows none) has left."""
        deadline = time.monotonic() + seconds
        while True:
            if connection:
                self.give_time(connection)
            left = deadline - time.monotonic()
            known = self._state.wait_until(is_met, max(min(left, LOOK_SECONDS), 0))
            if is_met(known) or left <= LOOK_SECONDS or not self.is_awaited(connection):
                return known

    def is_awaited(self, connection: socket.socket | None) -> bool:
        """Whether there is still something to wait for, and someone."""
        return not self._state.is_closed and not (connection and _has_left(connection))


def _has_left(connection: socket.socket) -> bool:
    poll = select.poll()
    poll.register(connection, GONE)
    return bool(poll.poll(0))
