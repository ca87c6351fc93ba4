"""Find a partition's last valid message by reading backwards from the end of the log."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from app.topic_log import Record

GROWTH = 4
# a window that holds this many messages is large enough: wider ones would read far past the tail
ENOUGH = 8192


Accepted = TypeVar("Accepted")


class Scan(Generic[Accepted]):
    """Finds the last message within some offsets of one partition that `accept` accepts.

    Reads windows that end where the one before began and grow from a single offset, so that a
    valid newest message costs one fetch and no message is validated twice. A window is read
    forward, in as many fetches as it takes. It grows by its offsets, not by its messages, for
    compaction and transactions leave offsets empty.

    Attributes:
        found: what `accept` made of that message, once `is_done`; None if there is none.
        validated: how many messages were validated: the one that was found, and invalid ones. One
            that was found before a later one of its window does not count.
        next: the offsets to be read next, which may hold no messages at all; empty at the end.
    """

    def __init__(
        self, offsets: range, accept: Callable[[Record], Accepted | None], width: int = 1
    ) -> None:
        """
        Args:
            width: how many offsets the first window has.
        """
        self._accept = accept
        self._unread = offsets
        self._width = width
        self._validated_before = 0
        self.validated = 0
        self.found: Accepted | None = None
        self.next = offsets[-width:]

    @property
    def is_done(self) -> bool:
        return not self.next

    def feed(self, stop: int, newest_first: Iterable[Record]) -> None:
        """Take the messages at the offsets `next` up to `stop`, the last one first. No more of them
        are decoded than have to be validated."""
        for message in newest_first:
            self.validated += 1
            accepted = self._accept(message)
            if accepted:
                if self.found:
                    self.validated -= 1
                self.found = accepted
                break
        self.next = range(stop, self.next.stop)
        if not self.next:
            self._open_next_window()

    def _open_next_window(self) -> None:
        self._unread = self._unread[: -self._width]
        if self.found or not self._unread:
            return
        if self.validated - self._validated_before < ENOUGH:
            self._width *= GROWTH
        self._validated_before = self.validated
        self.next = self._unread[-self._width :]

    def trim_before(self, log_start: int) -> None:
        """Skip the offsets before `log_start`: they were deleted."""
        self._unread = range(max(self._unread.start, log_start), self._unread.stop)
        self.next = range(max(self.next.start, log_start), self.next.stop)
        if not self.next:
            self._unread = range(0)
