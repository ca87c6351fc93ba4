"""Locates and follows one partition; its errors concern no other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic

from app.backoff import backoff_seconds
from app.following.locate import Accepted, Scan
from app.topic_log import Answer, Ask, AskEnds, AskRecords, Ends, Fetched, PartitionError, Record

FETCH_BYTES = 256 * 1024
# a fetch of a few messages shall not bring the many that came after them
MESSAGE_BYTES = 1024
LONGEST_PAUSE_SECONDS = 2.0
# the log is not what it was: it is located again
CHANGED = {"OFFSET_OUT_OF_RANGE", "LOG_TRUNCATED"}


@dataclass(frozen=True)
class Advance(Generic[Accepted]):
    """Some offsets of a partition were read through.

    Attributes:
        offsets: which ones.
        tail: the last valid message among them, if there is one; what is before it was not looked
            at.
        validated: how many messages were validated: the tail, and invalid ones.
        is_whole_log: whether these are all that the partition has.
    """

    offsets: range
    tail: Accepted | None
    validated: int
    is_whole_log: bool


class PartitionReader(Generic[Accepted]):
    """Says what to ask the partition's leader next, and takes the answer.

    It seeks to the end of the log and reads backwards from there to the last valid message; then
    it waits for more. Where more has come than one fetch brings, it does the same again, down to
    where it was. An offset counts as read only when it was decoded and validated, or when a valid
    message after it was found: what a fetch passes over is still unread.

    Attributes:
        position: the offset that is read next; None until the partition is located.
        end: where the log ended when it was last asked, open transactions included; None if that
            is not known.
        error: why the partition cannot be read now.
        failing_since: when that began, on the clock of `time.monotonic`, as all times here.
        confirmed_at: when everything was last confirmed to be read up to the end; None before the
            first time.
    """

    def __init__(
        self,
        accept: Callable[[Record], Accepted | None],
        on_undecodable: Callable[[int, str], None],
    ) -> None:
        self._accept = accept
        self._on_undecodable = on_undecodable
        self._scan: Scan[Accepted] | None = None
        self._scanned = range(0)
        self._comes_first = False  # in the next request, for others took the last one's room
        self._has_fetched = False
        self._failures = 0
        self._retry_at = 0.0
        self.position: int | None = None
        self.end: int | None = None
        self.error: PartitionError | None = None
        self.failing_since = 0.0
        self._end_told_at = 0.0
        self.confirmed_at: float | None = None

    def locate_again(self) -> None:
        """Look anew for the last valid message, for the log may be another one."""
        self.position, self._scan, self._comes_first = None, None, False

    def on_new_leader(self) -> None:
        """Locate again, at once: the new leader may have another log."""
        self.locate_again()
        self._retry_at = 0.0

    def next_ask(self, now: float) -> Ask | None:
        """Give what is to be asked; None while it waits after a failure."""
        if now < self._retry_at:
            return None
        if self._scan:
            wanted = self._scan.next
            size = min(len(wanted) * MESSAGE_BYTES, FETCH_BYTES)
            return AskRecords(wanted.start, size, first=self._comes_first)
        if self.position is None:
            return AskEnds()
        if self._comes_first:
            return AskRecords(self.position, FETCH_BYTES, first=True)
        # the first fetch does not wait: only its answer shows whether this client may read at all
        return AskRecords(self.position, MESSAGE_BYTES, may_wait=self._has_fetched)

    def take(self, answer: Answer, now: float) -> Advance[Accepted] | None:
        """Take the answer to what was asked; gives what it completes, if anything."""
        if isinstance(answer, Fetched) and self._scan and answer.end < self._scan.next.stop:
            detail = f"it ends at {answer.end}, not {self._scan.next.stop}"
            answer = PartitionError(answer.partition, "LOG_TRUNCATED", detail)
        if isinstance(answer, PartitionError):
            self._fail(answer, now)
            return None
        self.error, self._failures = None, 0
        if not self._scan:
            self._end_told_at = now
        if isinstance(answer, Ends):
            self.end = answer.end
            return self.read_through(range(answer.start, answer.end))
        self._has_fetched = True
        # a broker notes the high watermark before it reads, and may read on from there
        self.end = max(answer.high_watermark, answer.batches.stop)
        return self._take_scanned(answer) if self._scan else self._take_followed(answer)

    def _fail(self, error: PartitionError, now: float) -> None:
        if self.error is None:
            self.failing_since = now
        if error.name in CHANGED:
            self.locate_again()
        self.error = error
        self._failures += 1
        self._retry_at = now + backoff_seconds(self._failures, LONGEST_PAUSE_SECONDS)

    def _take_followed(self, fetched: Fetched) -> Advance[Accepted] | None:
        start = fetched.asked.offset
        stop = self._reached(fetched, to=fetched.end)
        if stop is None:
            return None
        if stop <= start:
            self.confirmed_at = self._end_told_at
            return None
        if stop < fetched.end:
            return self.read_through(range(start, fetched.end))
        offsets = range(start, stop)
        self._scan, self._scanned = Scan(offsets, self._accept, width=len(offsets)), offsets
        self._scan.feed(stop, fetched.batches.newest_first(offsets, self._on_undecodable))
        return self._end_scan()

    def read_through(self, offsets: range) -> Advance[Accepted] | None:
        """Read these offsets next."""
        self._scan, self._scanned = Scan(offsets, self._accept), offsets
        return self._end_scan() if self._scan.is_done else None

    def _take_scanned(self, fetched: Fetched) -> Advance[Accepted] | None:
        assert self._scan
        if fetched.log_start is not None:
            self._scan.trim_before(fetched.log_start)
        if not self._scan.is_done:
            wanted = self._scan.next
            stop = self._reached(fetched, to=wanted.stop)
            if stop is not None:
                newest_first = fetched.batches.newest_first(wanted, self._on_undecodable)
                self._scan.feed(min(stop, wanted.stop), newest_first)
        return self._end_scan() if self._scan.is_done else None

    def _reached(self, fetched: Fetched, to: int) -> int | None:
        """Give the offset up to which the answer is complete; None if it tells nothing, for other
        partitions' records took all its room."""
        stop = fetched.batches.stop
        if stop > fetched.asked.offset:
            self._comes_first = False
            return stop
        self._comes_first = fetched.asked.offset < to and not fetched.is_conclusive
        return None if self._comes_first else to

    def _end_scan(self) -> Advance[Accepted]:
        assert self._scan
        is_whole_log = self.position is None
        advance = Advance(self._scanned, self._scan.found, self._scan.validated, is_whole_log)
        self.position, self._scan = self._scanned.stop, None
        self.confirmed_at = self._end_told_at
        return advance
