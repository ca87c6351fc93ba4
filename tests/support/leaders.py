"""Leaders of partitions whose log is in memory: they answer in an order that no broker keeps to."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.topic_log import (
    Answer,
    Ask,
    AskEnds,
    AskRecords,
    Ends,
    Fetched,
    PartitionError,
    TopicLogError,
)
from app.topic_log.batches import Record


@dataclass(frozen=True)
class Batch:
    """Covers the offsets from `start` to before `stop`; what is missing of `records` was taken by
    compaction, is a marker, or was aborted."""

    start: int
    stop: int
    records: list[Record]


@dataclass
class Fetch:
    """Whole batches, from the one on that holds the offset that was asked for."""

    batches: list[Batch]

    @property
    def stop(self) -> int:
        return self.batches[-1].stop if self.batches else 0

    def newest_first(self, within: range, on_undecodable: object) -> Iterator[Record]:
        for batch in reversed(self.batches):
            yield from (record for record in reversed(batch.records) if record.offset in within)


@dataclass
class Leader:
    """
    Attributes:
        others_take_the_room: in how many more answers there is none left for this partition.
    """

    partition: int = 0
    batches: list[Batch] = field(default_factory=list)
    start: int = 0
    end: int = 0
    others_take_the_room: int = 0
    asked: list[AskEnds | AskRecords] = field(default_factory=list)

    def append(self, values: Sequence[bytes | None], gap: int = 0, timestamp: int = 0) -> None:
        """A batch of `values`, where None is an offset without a record; nothing is at the offsets
        of the `gap` before it."""
        start = self.end + gap
        records = [
            Record(self.partition, offset, timestamp, value)
            for offset, value in enumerate(values, start)
            if value
        ]
        self.end = start + len(values)
        self.batches.append(Batch(start, self.end, records))

    def answer(self, ask: AskEnds | AskRecords, most_batches: int = 1) -> Answer:
        self.asked.append(ask)
        if isinstance(ask, AskEnds):
            return Ends(self.partition, self.start, self.end)
        if not self.start <= ask.offset <= self.end:
            return PartitionError(self.partition, "OFFSET_OUT_OF_RANGE", "it was deleted")
        found = [batch for batch in self.batches if batch.stop > ask.offset][:most_batches]
        is_conclusive = ask.first or not self.others_take_the_room
        if not is_conclusive:
            self.others_take_the_room -= 1
            found = []
        return Fetched(
            self.partition,
            ask,
            self.end,
            self.end,
            self.start,
            Fetch(found),  # type: ignore[arg-type]
            is_conclusive,
        )


@dataclass
class Log:
    """A topic's log that says nothing of some partitions, and is gone when it is told to be.

    Attributes:
        asked: how often it was.
    """

    topic_id: str
    leaders: Mapping[int, Leader]
    silent: frozenset[int] = frozenset()
    failing_before: int = 0
    is_gone: bool = False
    fetches: int = 0
    asked: int = 0
    before_wait: Callable[[], None] | None = None

    def partitions(self) -> frozenset[int]:
        return frozenset(self.leaders)

    def ask(self, asks: Mapping[int, Ask], timeout: float) -> list[Answer]:
        assert self.before_wait
        self.before_wait()
        self.asked += 1
        time.sleep(0.01)  # as a broker waits for a record
        if self.is_gone:
            raise TopicLogError("it was deleted")
        return [self._answer(p, asks[p]) for p in asks.keys() - self.silent]

    def _answer(self, partition: int, ask: Ask) -> Answer:
        if isinstance(ask, AskRecords) and ask.offset < self.failing_before:
            return PartitionError(partition, "KAFKA_STORAGE_ERROR", "its disk has failed")
        return self.leaders[partition].answer(ask)

    def forget(self, partition: int) -> None: ...

    def want_metadata(self) -> None: ...

    def tells_epochs(self, partition: int) -> bool:
        return True

    def new_leaders(self) -> set[int]:
        return set()

    def commit(self, positions: Mapping[int, int]) -> None: ...

    def delete_group(self) -> None: ...

    def close(self) -> None: ...


def leader(partition: int, *states: Any, timestamp: int = 0, start: int = 0) -> Leader:
    leader = Leader(partition, start=start, end=start)
    for state in states:
        leader.append([json.dumps({"state": state}).encode()], timestamp=timestamp)
    return leader
