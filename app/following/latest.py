"""The latest messages of each partition, and which of them is the state."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from app.following.candidates import Candidate, Candidates
from app.following.retries import Delayed, Pending, Retries
from app.message import StateMessage
from app.state import Snapshot
from app.topic_log import Record

# parses a record; None if it is not valid
Validate = Callable[[Record], StateMessage | None]
# makes of a message what is served; raises InvalidMessage or RetryableError
Load = Callable[[StateMessage], Snapshot]
# finds the last message within some offsets of a partition that is accepted
ReadBack = Callable[[int, range, Callable[[Record], Candidate | None]], Candidate | None]


class CannotReadBack(Exception):
    """The partition cannot be read now; the text says why."""


@dataclass(frozen=True)
class _Ranked:
    """A candidate, ranked among those of other partitions.

    By its timestamp, but never above a later message of its partition: that one comes first. Of
    equal ones the higher partition wins.
    """

    candidate: Candidate
    timestamp: float

    @property
    def rank(self) -> tuple[float, int]:
        return self.timestamp, self.candidate.message.partition


class LatestMessages:
    """What is known of each partition's end. For the consumer thread only.

    The state is the newest message that loads: by timestamp across partitions, by offset within
    one. A message that cannot be loaded now is retried, and until it loads the newest before it is
    the state. This depends on the log alone: an instance that starts finds what one that runs has.

    Attributes:
        unread_because: why some partition could not be read back in the last pass, if so.
    """

    def __init__(
        self,
        validate: Validate,
        load: Load,
        is_cached: Callable[[StateMessage], bool],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            is_cached: whether a message is loaded without delay; raises what `load` does.
            now: a clock that never goes back, in seconds.
        """
        self._validate = validate
        self._load = load
        self._is_cached = is_cached
        self._partitions: dict[int, Candidates] = {}
        self._added: set[int] = set()
        self._appended = 0
        self.unread_because: str | None = None
        self._retries = Retries(now)

    @property
    def pending(self) -> list[Pending]:
        """The messages that did not load in the last pass, the newest first."""
        return self._retries.pending

    def append(self, message: StateMessage, since: int) -> None:
        """Note that `message` is its partition's last valid one now; of the offsets before it,
        those from `since` on were not read."""
        self._appended += 1
        self._of(message.partition).append(message, since, self._appended)

    def locate(self, partition: int, message: StateMessage | None, log: range) -> None:
        """Note that the partition's whole log was searched, and `message` is its last valid one. It
        may be another log than before.

        Args:
            message: None if it has none.
            log: the offsets that the partition has.
        """
        newest = self._of(partition).newest
        if newest and newest.message.offset < log.start:
            self.trim_before(partition, log.start)
            if message:
                self.append(message, since=log.start)
        elif message is None:
            self._partitions[partition] = Candidates()
        elif newest is None or newest.message.record_id != message.record_id:
            # what was there at the start was not appended since
            self._appended += newest is not None or partition in self._added
            before = range(log.start, message.offset)
            self._partitions[partition] = Candidates(Candidate(message, before, self._appended))
        self._added.discard(partition)

    def keep_only(self, partitions: Collection[int]) -> None:
        """Forget the other partitions. What an added one has counts as appended."""
        if self._partitions:
            self._added |= set(partitions) - self._partitions.keys()
        self._partitions = {p: self._of(p) for p in partitions}

    def trim_before(self, partition: int, start: int) -> None:
        """Note that what is before `start` was deleted.

        A deleted message may stay the state until any partition gets a valid one, for a state is
        not taken back because it is old. From then on it does not count, for an instance that
        starts does not know it.
        """
        self._of(partition).trim_before(start, self._appended)

    def _of(self, partition: int) -> Candidates:
        return self._partitions.setdefault(partition, Candidates())

    def newest(
        self, served: Snapshot | None, read_back: ReadBack, *, is_from_log: bool = True
    ) -> Snapshot | None:
        """Give the state.

        Args:
            served: what is served now; it is not loaded again.
            read_back: raises CannotReadBack.
            is_from_log: False where it was on the disk. Then, as without it, one that is cached
                will do until a newer one has loaded.

        Returns:
            None if there is none that loads now, or not all were tried yet.
        """
        if not (served and is_from_log):
            load_if_cached = functools.partial(self._load_if_cached, served)
            if cached := self._first_that_loads(load_if_cached, read_back):
                return cached
        return self._first_that_loads(functools.partial(self._load_unless, served), read_back)

    def _load_if_cached(self, served: Snapshot | None, message: StateMessage) -> Snapshot:
        if not _is_from(served, message) and not self._is_cached(message):
            raise Delayed
        return self._load_unless(served, message)

    def _load_unless(self, served: Snapshot | None, message: StateMessage) -> Snapshot:
        return served if served and _is_from(served, message) else self._load(message)

    def _first_that_loads(self, load: Load, read_back: ReadBack) -> Snapshot | None:
        self._retries.begin_pass()
        self.unread_because = None
        load = functools.partial(self._retries.attempt, load=load)
        ranking = {
            partition: _Ranked(known.newest, known.newest.message.timestamp)
            for partition, known in self._partitions.items()
            if known.newest
        }
        while ranking:
            partition, first = max(ranking.items(), key=lambda item: item[1].rank)
            first.candidate.try_to_load(load)
            if loaded := first.candidate.take_loaded():
                return loaded
            if self._retries.pass_is_over:
                return None
            del ranking[partition]
            others = max((other.rank for other in ranking.values()), default=None)
            if older := self._older(first, others, load, read_back):
                ranking[partition] = older
        return None

    def _older(
        self,
        newer: _Ranked,
        others: tuple[float, int] | None,
        load: Load,
        read_back: ReadBack,
    ) -> _Ranked | None:
        """Give the candidate before `newer`, which does not load.

        A message that ranks above all `others` would be tried next, so it is tried as it is read.
        Thousands of refused ones in a row are then passed in one go, and none is kept.
        """
        refused: list[tuple[int, int]] = []
        lowest = newer.timestamp

        def accept(record: Record) -> Candidate | None:
            nonlocal lowest
            parsed = self._validate(record)
            if parsed is None:
                return None
            found = Candidate(parsed, unread=range(0), last_seen=newer.candidate.last_seen)
            lowest = min(lowest, parsed.timestamp)
            if others is None or (lowest, parsed.partition) > others:
                found.try_to_load(load)
            if found.is_refused:
                refused.append((parsed.offset, parsed.timestamp))
                return None
            return found

        candidate = newer.candidate
        if candidate.unread:
            try:
                found = read_back(candidate.message.partition, candidate.unread, accept)
                # a window of several fetches is read forward: some may be older than `found`
                after = found.message.offset if found else -1
                timestamps = (timestamp for offset, timestamp in refused if offset > after)
                candidate.note_read_back(found, min(timestamps, default=math.inf))
            except CannotReadBack as error:
                self.unread_because = str(error)
        older = candidate.older
        if older is None:
            return None
        timestamp = min(newer.timestamp, candidate.lowest_refused, older.message.timestamp)
        return _Ranked(older, timestamp)


def _is_from(served: Snapshot | None, message: StateMessage) -> bool:
    return served is not None and served.record_id == message.record_id
