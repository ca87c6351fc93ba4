"""Which message is the state: of the partitions' tails, the newest one that loads."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from app.loading import InvalidMessage, StateMessage, TryAgain
from app.locate import newest_tail
from app.message import Message
from app.pauses import pause_seconds
from app.state import Place, Snapshot

LONGEST_PAUSE_SECONDS = 30.0
# where nothing is served yet, messages before those that do not load now are tried, but not all
# of a log while its models' storage is away
MOST_PENDING = 3

Judge = Callable[[Message], StateMessage | None]
# finds the last message in each of the ranges (offsets by partition) that is accepted
ReadBack = Callable[[Mapping[int, range], Judge], Mapping[int, StateMessage]]


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
    """

    message: StateMessage
    before: range
    older: _Link | None = None
    loads: bool | None = None

    @property
    def partition(self) -> int:
        return self.message.partition

    @property
    def timestamp(self) -> int:
        return self.message.timestamp


@dataclass
class Tails:
    """The tails of one connection to the log. For the consumer thread only.

    Only what would be served is loaded, so that a topic of many partitions costs one load. Which
    one that is depends on the log alone: every partition's last valid message has its place by
    timestamp, also if it turns out not to load and one before it takes its place.

    Attributes:
        load: makes of a message what is served; raises InvalidMessage or TryAgain.
        judge: parses a message; None if it is not valid.
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

    @property
    def pending(self) -> list[Pending]:
        """The messages that `newest` would serve, and which do not load now, the newest first."""
        return list(self._pending.values())

    def move(self, message: StateMessage, since: int) -> None:
        """Note that `message` is its partition's last valid one now; of the offsets before it,
        those from `since` on were not looked at."""
        older = self._links.get(message.partition)
        if older and older.loads is False:
            older = older.older
        elif older and older.loads is None:
            since, older = older.before.start, older.older
        self._links[message.partition] = _Link(message, range(since, message.offset), older)

    def newest(self, served: Snapshot | None) -> Snapshot | None:
        """Give the state.

        Args:
            served: what is served now, and goes on being served until a newer one loads.

        Returns:
            None if there is none that loads now, or if the newest one has to be tried again while
            another is served.
        """
        if not served:
            stopgap = self._newest_that_loads(None, only_at_hand=True)
            if stopgap:
                return stopgap
        return self._newest_that_loads(served, only_at_hand=False)

    def _newest_that_loads(self, served: Snapshot | None, only_at_hand: bool) -> Snapshot | None:
        self._only_at_hand = only_at_hand
        contenders = dict(self._links)
        pending_before, self._pending = self._pending, {}
        try:
            while contenders:
                link = newest_tail(contenders.values())
                snapshot = self._try(link, served, pending_before)
                if snapshot:
                    return snapshot
                if link.loads is None and (served or len(self._pending) >= MOST_PENDING):
                    return None
                del contenders[link.partition]
                older = self._older(link, pending_before)
                if older:
                    contenders[link.partition] = older
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
        link.before, link.older = _nothing_before(link), None
        return snapshot

    def _older(self, link: _Link, pending: Mapping[Place, Pending]) -> _Link | None:
        def accept(message: Message) -> StateMessage | None:
            parsed = self.judge(message)
            try:
                if parsed:
                    self._loaded = self._load(parsed, pending)
            except InvalidMessage:
                return None
            except TryAgain:
                pass
            return parsed

        if link.before:
            found = self.read_back({link.partition: link.before}, accept).get(link.partition)
            if found:
                before = range(link.before.start, found.offset)
                link.older = _Link(found, before, link.older)
            link.before = _nothing_before(link)
        return link.older

    def _load(self, message: StateMessage, pending: Mapping[Place, Pending]) -> Snapshot:
        if self._loaded and self._loaded.place == message.place:
            return self._loaded
        last = self._pending.get(message.place) or pending.get(message.place)
        if last and self.now() < last.next_try:
            self._pending[message.place] = last
            raise TryAgain(last.reason, last.detail)
        tries = last.tries if last else 0
        try:
            if not self._only_at_hand or self.is_at_hand(message):
                return self.load(message)
        except TryAgain as error:
            tries += 1
            self._note(message, error, tries, pause_seconds(tries, LONGEST_PAUSE_SECONDS))
            raise
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
