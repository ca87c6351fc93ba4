"""Find each partition's tail by reading backwards from the end of the log."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol, TypeVar

from app.message import Message

GROWTH = 4
# a window that holds this many messages is large enough: wider ones would read far past the tail
ENOUGH = 8192


class RangeReader(Protocol):
    def read(self, ranges: Mapping[int, range]) -> Iterator[Sequence[Message]]:
        """Read the offsets of `ranges` (by partition): runs of one partition's messages, each
        partition's in order, nothing for offsets that hold none."""


class Placed(Protocol):
    @property
    def partition(self) -> int: ...
    @property
    def timestamp(self) -> int: ...


Accepted = TypeVar("Accepted")
Tail = TypeVar("Tail", bound=Placed)


def locate(
    log: RangeReader, ranges: Mapping[int, range], judge: Callable[[Message], Accepted | None]
) -> dict[int, Accepted]:
    """Find the last message in each of `ranges` (offsets by partition) that `judge` accepts.

    Reads windows that end where the one before began and grow from a single offset, so that a
    valid newest message costs one fetch and no message is judged twice. A window grows by its
    offsets, not by its messages, for compaction and transactions leave offsets empty.

    Returns:
        What `judge` made of it, by partition; one without a valid message in its range is left
        out.
    """
    tails: dict[int, Accepted] = {}
    unread = {partition: offsets for partition, offsets in ranges.items() if offsets}
    width = 1
    while unread:
        windows = {partition: offsets[-width:] for partition, offsets in unread.items()}
        seen = 0
        for messages in log.read(windows):
            seen += len(messages)
            newest = newest_accepted(messages, judge)
            if newest:
                tails[messages[0].partition] = newest
        unread = {
            partition: before
            for partition, offsets in unread.items()
            if partition not in tails and (before := offsets[:-width])
        }
        if seen < ENOUGH:
            width *= GROWTH
    return tails


def newest_tail(tails: Iterable[Tail]) -> Tail:
    """Give the newest of the tails by timestamp, ties to the higher partition.

    Every instance that has read the same log comes to the same one.
    """
    return max(tails, key=lambda tail: (tail.timestamp, tail.partition))


def newest_accepted(
    messages: Sequence[Message], judge: Callable[[Message], Accepted | None]
) -> Accepted | None:
    return next(filter(None, map(judge, reversed(messages))), None)
