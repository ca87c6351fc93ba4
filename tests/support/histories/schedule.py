"""What may happen to a topic, drawn at random."""

from __future__ import annotations

import functools
import itertools
import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from confluent_kafka import (
    OFFSET_END,
    KafkaError,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
)

from dev.apache_kafka import ApacheKafka
from tests.support.histories.reading import INITIAL, Reading, SlowReader, place_of
from tests.support.histories.writers import CODECS, LINGER_MS, Writer, Writers
from tests.support.topics import admin_of, new_topic
from tests.support.undecodable import send_undecodable
from tests.support.waiting import eventually

MOST_PARTITIONS = 4
JUNK = (None, None, b"", b"junk", b"\xff", b"{}", b'{"state":NaN}')
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
COMPACTED = {
    "cleanup.policy": "compact",
    "segment.ms": "100",
    "min.cleanable.dirty.ratio": "0.01",
    "delete.retention.ms": "0",
}
TIMESTAMPS_WITHIN_MS = 60_000
LONGEST_PAUSES = (0, 0.05, 0.2)
WAIT_SECONDS = 30
# before Kafka 3.8 a broker looks for what is to go half a minute after its start, not before
RETENTION_SECONDS = 60

# how soon it is to be served
PATIENCE = 1.0
PATIENCE_WITH_NEW_PARTITIONS = 3.0
PATIENCE_AFTER_A_RESTART = 10.0


@dataclass(frozen=True)
class ToSend:
    """A message; its `state` is None where it is not valid."""

    partition: int
    state: int | None
    value: bytes | None
    timestamp: int

    @property
    def key(self) -> bytes:
        # so that compaction never takes a valid message for one that is not
        return b"junk %d" % (len(self.value or b"") % 2) if self.state is None else b"valid"

    def __str__(self) -> str:
        length = len(self.value or b"")
        size = "" if length < 100 else f" of {length} bytes"
        what = f"junk {self.value!r}" if self.state is None else f"{self.state}{size}"
        return f"{what} to {self.partition} at {self.timestamp}"


@dataclass(frozen=True)
class Transaction:
    """One that has begun; `starts` is its first offset in each partition that it writes to."""

    writer: Writer
    states: set[int]
    starts: dict[int, int]


class Schedule:
    """A topic and its history, which the seed decides but for the time that each step takes.

    Attributes:
        patience: seconds within which what the last steps did is to be served.
        steps: what was done so far, to be read when something is wrong.
        uncommitted: states of transactions that were aborted, or are open.
    """

    def __init__(self, kafka: ApacheKafka, writers: Writers, seed: int) -> None:
        self._kafka = kafka
        self._writers = writers
        self._random = random.Random(seed)
        self._began = time.monotonic()
        self._admin = admin_of(kafka.address)
        self._reader = SlowReader(kafka.address)
        self._numbers = itertools.count(INITIAL + 1)
        self._states: dict[bytes, int] = {}
        self._open: Transaction | None = None
        self._ends: dict[int, int] = {}
        self._before_deletions: list[Reading] = []
        self._compacted = self._random.random() < 0.3
        self._partitions = self._random.randint(1, MOST_PARTITIONS)
        self._compression = self._random.choice(("producer", "producer", "zstd"))
        config = {
            **(COMPACTED if self._compacted else {}),
            "compression.type": self._compression,
            "message.timestamp.type": self._random.choice(("CreateTime",) * 5 + ("LogAppendTime",)),
        }
        self.patience = PATIENCE
        self.uncommitted: set[int] = set()
        self.steps: list[str] = []
        self._note(f"a topic of {self._partitions} partitions, {config}")
        self.topic = new_topic(kafka.address, num_partitions=self._partitions, config=config)
        self._await_leaders()

    def go_on(self) -> None:
        """Do some steps, with pauses between them."""
        self.patience = PATIENCE
        # those that change what may be served, or how soon, come first: all before them is served
        self._one_of((*self._WRITING, *self._OTHER))
        for _ in range(self._random.randrange(4)):
            pause = self._random.uniform(0, self._random.choice(LONGEST_PAUSES))
            self._note(f"a pause of {pause * 1000:.0f} ms")
            time.sleep(pause)
            self._one_of(self._WRITING)

    def finish(self) -> None:
        """End what is open, and have a valid message after all that was deleted."""
        self.patience = PATIENCE
        if self._open:
            self.leave_a_transaction_open_or_end_it()
        self._send([self._valid(self._random.randrange(self._partitions))], self._writer())

    def close(self) -> None:
        self._reader.close()

    def look(self) -> tuple[set[int], dict[int, int]]:
        """The states that may be served now, and where each partition ends.

        One whose message was deleted may stay until there is a valid message after the deletion;
        which of two went first nobody can tell.
        """
        now = self._slow_reading()
        if self._before_deletions and now.has_news_since(self._before_deletions[-1]):
            self._before_deletions.clear()
        may_stay = [before.states_deleted_in(now) for before in self._before_deletions]
        return {now.state}.union(*may_stay), now.ends

    @property
    def is_open(self) -> bool:
        """Whether there is a transaction that was not ended yet."""
        return self._open is not None

    def write(self) -> None:
        messages = self._draw()
        one_by_one = len(messages) <= 10 and self._random.random() < 0.3
        writer = self._writer()
        for some in [[message] for message in messages] if one_by_one else [messages]:
            self._send(some, writer)

    def write_a_transaction(self) -> None:
        self._end(self._begin("short"))

    def leave_a_transaction_open_or_end_it(self) -> None:
        if self._open:
            self._end(self._open)
            self._open = None
        else:
            self._open = self._begin("open")

    def write_undecodable_ones(self) -> None:
        # they have no key, and a broker that compresses anew makes decodable ones of them
        if self._compacted or self._compression != "producer":
            return
        partition, count = self._random.randrange(self._partitions), self._random.randint(1, 5)
        self._note(f"{count} undecodable to {partition}")
        send_undecodable(self.topic, count, partition)

    def delete_records(self) -> None:
        """Up to some offset, or all."""
        upto = []
        before = self._slow_reading()
        for partition, end in before.ends.items():
            share = self._random.choice((0, self._random.random(), 1))
            offset = OFFSET_END if share == 1 else int(share * end)
            if share and not self._compacted:  # Kafka refuses it there
                upto.append(TopicPartition(self.topic.name, partition, offset))
        self._note(f"records deleted before {[(at.partition, at.offset) for at in upto]}")
        for deleted in self._admin.delete_records(upto).values() if upto else ():
            deleted.result(WAIT_SECONDS)
        # what was deleted earlier may still be served
        self._before_deletions.append(before)

    def retain_nothing(self) -> None:
        """For a moment, in which all there is goes."""
        if self._compacted:
            return
        before = self._slow_reading()
        self._note("nothing is retained")
        self._retain("0")
        eventually(
            lambda: all(self._start_of(p) >= end for p, end in before.ends.items()),
            RETENTION_SECONDS,
        )
        self._retain("-1")
        self._before_deletions.append(before)

    def _retain(self, size: str) -> None:
        topic = ConfigResource(
            ConfigResource.Type.TOPIC,
            self.topic.name,
            incremental_configs=[
                ConfigEntry("retention.bytes", size, incremental_operation=AlterConfigOpType.SET)
            ],
        )
        self._admin.incremental_alter_configs([topic])[topic].result(WAIT_SECONDS)

    def _start_of(self, partition: int) -> int:
        return self._reader.start_of(self.topic.name, partition)

    def add_partitions(self) -> None:
        if self._partitions == MOST_PARTITIONS:
            return
        self._partitions += 1
        self._note(f"{self._partitions} partitions")
        new = NewPartitions(self.topic.name, self._partitions)
        self._admin.create_partitions([new])[self.topic.name].result(WAIT_SECONDS)
        clients: list[Producer | AdminClient] = [writer.producer for writer in self._writers]
        for client in (*clients, self._admin):
            eventually(functools.partial(self._sees_the_partitions, client))
        self._await_leaders()
        self.patience = PATIENCE_WITH_NEW_PARTITIONS

    def _sees_the_partitions(self, client: Producer | AdminClient) -> bool:
        topic = client.list_topics(self.topic.name, timeout=WAIT_SECONDS).topics
        return len(topic[self.topic.name].partitions) == self._partitions

    def kill_the_broker(self) -> None:
        self._note("the broker is killed")
        self._kafka.kill()
        self._kafka.start()
        eventually(self._all_have_leaders)
        # the old one may wait for an answer that it has lost
        self._reader.close()
        self._reader = SlowReader(self._kafka.address)
        self._await_leaders()
        self._note("the broker is back")
        self.patience = PATIENCE_AFTER_A_RESTART

    def _all_have_leaders(self) -> bool:
        topic = self._admin.list_topics(self.topic.name, timeout=WAIT_SECONDS).topics
        return all(at.leader >= 0 for at in topic[self.topic.name].partitions.values())

    _WRITING = (
        (write, 40),
        (write_a_transaction, 25),
        (leave_a_transaction_open_or_end_it, 12),
        (write_undecodable_ones, 5),
    )
    _OTHER = ((delete_records, 8), (retain_nothing, 4), (add_partitions, 4), (kill_the_broker, 2))

    def _one_of(self, kinds: Sequence[tuple[Callable[[Schedule], None], int]]) -> None:
        steps, weights = zip(*kinds, strict=True)
        self._random.choices(steps, weights)[0](self)

    def _draw(self) -> list[ToSend]:
        """Messages of all kinds, to one partition or some."""
        draw = self._random
        count = draw.choice((1, 1, 2, 3, 3, draw.randint(1, 10), draw.randint(50, 500)))
        padding = draw.choice((0, 0, 0, 1_000, 50_000 if count <= 10 else 0))
        share_of_valid = draw.choice((0, 0.1, 0.5, 1, 1))
        partitions = draw.sample(range(self._partitions), draw.randint(1, self._partitions))
        any_time = draw.random() < 0.5
        return [
            self._valid(partition, padding, any_time)
            if draw.random() < share_of_valid
            else ToSend(partition, None, draw.choice(JUNK), self._timestamp(any_time))
            for partition in draw.choices(partitions, k=count)
        ]

    def _valid(self, partition: int, padding: int = 0, any_time: bool = False) -> ToSend:
        state = next(self._numbers)
        value = json.dumps({"state": state, "text": "x" * padding}).encode()
        if self._random.random() < 0.1:
            value = BYTE_ORDER_MARK + value
        self._states[value] = state
        return ToSend(partition, state, value, self._timestamp(any_time))

    def _timestamp(self, any_time: bool) -> int:
        away = self._random.randint(-TIMESTAMPS_WITHIN_MS, TIMESTAMPS_WITHIN_MS)
        return int(time.time() * 1000) + (away if any_time else 0)

    def _writer(self) -> Writer:
        codec, linger_ms = self._random.choice(CODECS), self._random.choice(LINGER_MS)
        # compaction leaves the last batch of an idempotent producer, without its messages
        idempotent = self._compacted or self._random.random() < 0.5
        return self._writers.plain(codec, linger_ms, idempotent)

    def _begin(self, kind: str) -> Transaction:
        writer = self._writers.transactional(kind, self._random.choice(CODECS))
        messages = self._draw()
        states = {message.state for message in messages if message.state is not None}
        self.uncommitted |= states
        writer.producer.begin_transaction()
        return Transaction(writer, states, self._send(messages, writer))

    def _end(self, transaction: Transaction) -> None:
        how, producer = transaction.writer
        if self._random.random() < 0.5:
            self._note(f"{how} aborted")
            producer.abort_transaction(WAIT_SECONDS)
        else:
            self._note(f"{how} committed")
            self.uncommitted -= transaction.states
            producer.commit_transaction(WAIT_SECONDS)
        for partition in transaction.starts:
            self._ends[partition] += 1  # its marker, which may be written a little later

    def _send(self, messages: Sequence[ToSend], writer: Writer) -> dict[int, int]:
        """Send and wait for the acknowledgements; gives the first offset in each partition."""
        shown = [str(message) for message in messages]
        if len(shown) > 12:
            shown[5:-5] = ["…"]
        self._note(f"{len(messages)} by {writer.how}: {', '.join(shown)}")
        starts: dict[int, int] = {}
        failures: list[KafkaError] = []

        def acknowledge(error: KafkaError | None, sent: Message) -> None:
            if error:
                failures.append(error)
            else:
                partition, offset = place_of(sent)
                starts.setdefault(partition, offset)
                self._ends[partition] = offset + 1

        for message in messages:
            writer.producer.produce(
                self.topic.name,
                message.value,
                message.key,
                message.partition,
                acknowledge,
                timestamp=message.timestamp,
            )
        assert writer.producer.flush(WAIT_SECONDS) == 0
        assert failures == []
        return starts

    def _slow_reading(self) -> Reading:
        """Look at all there is from the first; a transaction is over soon after it was ended."""
        least = {**self._ends, **(self._open.starts if self._open else {})}

        def read_all() -> Reading | None:
            reading = self._reader.read(self.topic.name, self._partitions, self._states)
            return reading if all(reading.ends[p] >= least[p] for p in least) else None

        reading = eventually(read_all)
        assert reading
        return reading

    def _await_leaders(self) -> None:
        """Who leads a partition may refuse one batch of an idempotent producer and take the next,
        as long as it has yet to begin: an error for good, as the first one never fits again."""
        self._reader.read(self.topic.name, self._partitions, self._states)

    def _note(self, step: str) -> None:
        self.steps.append(f"{time.monotonic() - self._began:7.3f} s: {step}")
