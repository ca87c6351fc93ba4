"""The slow reading of a topic, from its first message on."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    Message,
    TopicPartition,
)

INITIAL = 0
WAIT_SECONDS = 30


@dataclass(frozen=True, order=True)
class Tail:
    timestamp: int
    partition: int
    offset: int
    state: int


def place_of(message: Message) -> tuple[int, int]:
    partition, offset = message.partition(), message.offset()
    assert partition is not None
    assert offset is not None
    return partition, offset


@dataclass(frozen=True)
class Reading:
    """What all there is comes to, for who reads what is committed.

    Attributes:
        tails: the last valid message of each partition that has one.
        ends: of each partition.
    """

    tails: dict[int, Tail]
    ends: dict[int, int]

    @property
    def state(self) -> int:
        return max(self.tails.values()).state if self.tails else INITIAL

    def states_deleted_in(self, now: Reading) -> set[int]:
        """The states that were deleted since, from the newest down to one that is still there."""
        newest_first = sorted(self.tails.values(), reverse=True)
        gone = itertools.takewhile(lambda tail: tail not in now.tails.values(), newest_first)
        return {tail.state for tail in gone}

    def has_news_since(self, before: Reading) -> bool:
        return any(
            p not in before.tails or tail.offset > before.tails[p].offset
            for p, tail in self.tails.items()
        )


class SlowReader:
    """One for many readings: a new one takes half a second until it reads."""

    def __init__(self, servers: str) -> None:
        self._consumer = Consumer(
            {
                "bootstrap.servers": servers,
                "group.id": "unused",
                "enable.auto.commit": False,
                # where it last found the beginning there may be nothing any more
                "auto.offset.reset": "earliest",
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 10,
                "log_level": 0,
            }
        )

    def start_of(self, topic: str, partition: int) -> int:
        at = TopicPartition(topic, partition)
        return self._consumer.get_watermark_offsets(at, WAIT_SECONDS)[0]

    def read(self, topic: str, partitions: int, states: Mapping[bytes, int]) -> Reading:
        """
        Args:
            states: by a message's value; what is not among them is not valid.
        """
        tails: dict[int, Tail] = {}
        ends: dict[int, int] = {}
        self._consumer.assign(
            [TopicPartition(topic, p, OFFSET_BEGINNING) for p in range(partitions)]
        )
        while len(ends) < partitions:
            message = self._consumer.poll(WAIT_SECONDS)
            assert message is not None, f"no more than {ends}"
            partition, offset = place_of(message)
            value = message.value()
            if error := message.error():
                assert error.code() == KafkaError._PARTITION_EOF, error
                ends[partition] = offset
            elif value is not None and value in states:
                timestamp = message.timestamp()[1]
                tails[partition] = Tail(timestamp, partition, offset, states[value])
        self._consumer.unassign()
        return Reading(tails, ends)

    def close(self) -> None:
        self._consumer.close()
