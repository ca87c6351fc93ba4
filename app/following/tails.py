"""Which message is the state: of the partitions' tails, the newest one that loads."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from app.backoff import pause_seconds
from app.message import Message, StateMessage
from app.message_errors import InvalidMessage, TryAgain
from app.state import Place, Snapshot

LONGEST_PAUSE_SECONDS = 30.0
# messages before those that do not load now are tried too, and a few at a time, so that what
# comes meanwhile is not kept waiting while their models' storage is away; but not all of a log
MOST_TRIES = 3
MOST_PENDING = 100

Judge = Callable[[Message], StateMessage | None]
# finds the last message within some offsets of a partition that is accepted
ReadBack = Callable[[int, range, Judge], StateMessage | None]


class CannotReadBack(Exception):
    """The partition cannot be read now; its text says why."""


@dataclass(frozen=True)
class Pending:
    """A message that is to be tried again at `next_try`, on the clock of `time.monotonic`."""

    partition: int
    offset: int
    reason: str
    detail: str
    tries: int
    next_try: float

    def __str__(self) -> str:
        return f"partition {self.partition}, offset {self.offset}, {self.reason}: {self.detail}"


@dataclass
class _Link:
    """A message that is its partition's tail, or would be if those after it do not load.

    Attributes:
        before: the offsets before it that were not looked at.
        older: the message before those.
        loads: once that is known.
        refused: the lowest timestamp of the messages before it that never load, and were left out.
        seen_after: how many tails had moved when this message was last known to be in the log.
    """

    message: StateMessage
    before: range
    older: _Link | None = None
    loads: bool | None = None
    refused: float = math.inf
    seen_after: int = 0


@dataclass(frozen=True)
class _Contender:
    """A message that is the state if it loads, and if it ranks highest of those of all partitions.

    It ranks by its timestamp, but never above a message after it in its partition, which would
    have been the state in its place; ties go to the higher partition.
    """

    link: _Link
    timestamp: float

    @property
    def rank(self) -> tuple[float, int]:
        return self.timestamp, self.link.message.partition


@dataclass
class Tails:
    """The partitions' tails, and which of them is the state. For the consumer thread only.

    The state is the newest message that loads. Only what would be served is loaded, so that a
    topic of many partitions costs one load. Which one that is depends on the log alone: every
    partition's last valid message has its place by timestamp, also if it turns out not to load
    and one before it takes its place. What cannot be loaded now is tried again, and until then
    the newest before it is served, by an instance that is running and by one that starts alike.

    Attributes:
        load: makes of a message what is served; raises InvalidMessage or TryAgain.
        judge: parses a message; None if it is not valid.
        read_back: raises CannotReadBack.
        is_at_hand: whether a message is loaded without delay; raises what `load` does.
    """

    load: Callable[[StateMessage], Snapshot]
    judge: Judge
    read_back: ReadBack
    is_at_hand: Callable[[StateMessage], bool]
    now: Callable[[], float] = time.monotonic
    _links: dict[int, _Link] = field(default_factory=dict)
    _pending: dict[Place, Pending] = field(default_factory=dict)
    _loaded: Snapshot | None = None
    _only_at_hand: bool = False
    _tries: int = 0
    _due: Pending | None = None
    _moves: int = 0
    _partitions: frozenset[int] = frozenset()
    _added: set[int] = field(default_factory=set)

    @property
    def pending(self) -> list[Pending]:
        """The messages that are newer than the state and do not load now, the newest first."""
        return list(self._pending.values())

    def move(self, message: StateMessage, since: int) -> None:
        """Note that `message` is its partition's last valid one now; of the offsets before it,
        those from `since` on were not looked at."""
        self._moves += 1
        link = _Link(message, range(since, message.offset), seen_after=self._moves)
        last = self._links.get(message.partition)
        if last and last.loads is False and not last.before:
            link.older = last.older
            link.refused = min(last.refused, last.message.timestamp)
        elif last and not last.loads:  # it is found again if it is needed
            link.before = range(last.before.start, message.offset)
            link.older, link.refused = last.older, last.refused
        else:
            link.older = last
        self._links[message.partition] = link

    def locate(self, partition: int, message: StateMessage | None, log: range) -> None:
        """Note that `message` is the last valid one of the partition's whole log, which may not be
        the log that it was.

        Args:
            message: None if it has none.
            log: the offsets that the partition has.
        """
        known = self._links.get(partition)
        if known and known.message.offset < log.start:
            self.log_starts_at(partition, log.start)
            if message:
                self.move(message, since=log.start)
        elif message is None:
            self._links.pop(partition, None)
        elif known is None or known.message.place != message.place:
            # what was there before is not newer than anything
            self._moves += known is not None or partition in self._added
            before = range(log.start, message.offset)
            self._links[partition] = _Link(message, before, seen_after=self._moves)
        self._added.discard(partition)

    def keep_only(self, partitions: Collection[int]) -> None:
        """Forget what was known of others, and note which were added: all they have is news."""
        if self._partitions:
            self._added |= set(partitions) - self._partitions
        self._partitions = frozenset(partitions)
        self._links = {p: link for p, link in self._links.items() if p in partitions}

    def log_starts_at(self, partition: int, start: int) -> None:
        """Note which messages were deleted: they have no say any more as soon as a tail has moved
        since they were last known to be there, for another instance would not know them. Until
        then they have: a state is not taken back because it is old."""
        link = self._links.get(partition)
        newer: _Link | None = None
        while link and link.message.offset >= start:
            link.seen_after = self._moves
            link.before = range(max(link.before.start, start), link.message.offset)
            newer, link = link, link.older
        if link is None or link.seen_after == self._moves:
            return
        if newer:
            newer.older = None
        else:
            del self._links[partition]

    def newest(self, served: Snapshot | None) -> Snapshot | None:
        """Give the state.

        Args:
            served: what is served now, and is not loaded again.

        Returns:
            None if there is none that loads now, or not all were tried yet.
        """
        if not served:
            stopgap = self._newest_that_loads(None, only_at_hand=True)
            if stopgap:
                return stopgap
        return self._newest_that_loads(served, only_at_hand=False)

    def _newest_that_loads(self, served: Snapshot | None, only_at_hand: bool) -> Snapshot | None:
        self._only_at_hand, self._tries = only_at_hand, 0
        contenders = {
            p: _Contender(link, link.message.timestamp) for p, link in self._links.items()
        }
        pending_before, self._pending = self._pending, {}
        # one at a time, or what waits for a time-out each would keep all others from being tried
        self._due = min(
            (pending for pending in pending_before.values() if pending.next_try <= self.now()),
            key=lambda pending: pending.next_try,
            default=None,
        )
        try:
            while contenders:
                first = max(contenders.values(), key=lambda contender: contender.rank)
                snapshot = self._try(first.link, served, pending_before)
                if snapshot:
                    return snapshot
                if self._tries >= MOST_TRIES or len(self._pending) >= MOST_PENDING:
                    return None
                del contenders[first.link.message.partition]
                others = max((other.rank for other in contenders.values()), default=None)
                older = self._older(first, others, pending_before)
                if older:
                    contenders[older.link.message.partition] = older
            return None
        finally:
            self._loaded = None

    def _try(
        self, link: _Link, served: Snapshot | None, pending: Mapping[Place, Pending]
    ) -> Snapshot | None:
        if link.loads is False:
            return None
        try:
            is_served = served and served.place == link.message.place
            snapshot = served if is_served else self._load(link.message, pending)
        except InvalidMessage:
            link.loads = False
            return None
        except TryAgain:
            return None
        link.loads = True
        link.before, link.older, link.refused = _nothing_before(link), None, math.inf
        return snapshot

    def _older(
        self,
        contender: _Contender,
        others: tuple[float, int] | None,
        pending: Mapping[Place, Pending],
    ) -> _Contender | None:
        """Give the message before one that does not load; of those that rank above the `others`,
        one that is not known not to load."""
        link, refused = contender.link, math.inf

        def accept(message: Message) -> StateMessage | None:
            nonlocal refused
            parsed = self.judge(message)
            if not parsed:
                return None
            timestamp = min(contender.timestamp, refused, parsed.timestamp)
            if others and (timestamp, parsed.partition) < others:
                return parsed
            try:
                self._loaded = self._load(parsed, pending)
            except InvalidMessage:
                refused = min(refused, parsed.timestamp)
                return None
            except TryAgain:
                pass
            return parsed

        # what is there of a partition that cannot be read is looked at as soon as it can
        with contextlib.suppress(CannotReadBack):
            if link.before:
                found = self.read_back(link.message.partition, link.before, accept)
                if found:
                    before = range(link.before.start, found.offset)
                    link.older = _Link(
                        found,
                        before,
                        link.older,
                        refused=link.refused,
                        seen_after=link.seen_after,
                    )
                    link.refused = refused
                else:
                    link.refused = min(link.refused, refused)
                link.before = _nothing_before(link)
        if link.older is None:
            return None
        timestamp = min(contender.timestamp, link.refused, link.older.message.timestamp)
        return _Contender(link.older, timestamp)

    def _load(self, message: StateMessage, pending: Mapping[Place, Pending]) -> Snapshot:
        if self._loaded and self._loaded.place == message.place:
            return self._loaded
        noted = self._pending.get(message.place)
        if noted:
            raise TryAgain(noted.reason, noted.detail)
        last = pending.get(message.place)
        if last and last.tries and last is not self._due:
            self._pending[message.place] = last
            raise TryAgain(last.reason, last.detail)
        tries = last.tries if last else 0
        try:
            if not self._only_at_hand or self.is_at_hand(message):
                return self.load(message)
        except TryAgain as error:
            tries += 1
            self._tries += 1
            self._note(message, error, tries, pause_seconds(tries, LONGEST_PAUSE_SECONDS))
            raise
        self._tries += 1
        delayed = TryAgain("delayed", "it takes time, and the newest that does not comes first")
        self._note(message, delayed, tries, pause=0.0)
        raise delayed

    def _note(self, message: StateMessage, error: TryAgain, tries: int, pause: float) -> None:
        self._pending[message.place] = Pending(
            message.partition,
            message.offset,
            error.reason,
            str(error),
            tries,
            self.now() + pause,
        )


def _nothing_before(link: _Link) -> range:
    return range(link.message.offset, link.message.offset)
