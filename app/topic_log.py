"""The topic as a log that is read by offset: the only module that knows the Kafka client.

It runs on kafka-python-ng 2.2 and, unchanged, on kafka-python 3; where a line is there for one of
them, it says so.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic
from kafka.errors import (
    CorruptRecordException,
    IncompatibleBrokerVersion,
    KafkaError,
    TopicAlreadyExistsError,
)
from kafka.structs import OffsetAndMetadata

from app.message import Message
from app.settings import Settings

__all__ = ["KafkaError", "TopicLog", "connection_options"]

log = logging.getLogger(__name__)

POLL_MS = 500
FETCH_BYTES = 256 * 1024
REQUEST_TIMEOUT_MS = 15_000
BOOTSTRAP_TIMEOUT_MS = 5_000
FIRST_COMMIT_SECONDS = 0.25
COMMIT_SECONDS = 5.0
COMMIT_UNCHANGED_SECONDS = 600.0  # far below offsets.retention.minutes, seven days by default

CLIENT_READS_COMMITTED = "isolation_level" in KafkaConsumer.DEFAULT_CONFIG


def connection_options(settings: Settings) -> dict[str, Any]:
    """What every client of the cluster, consumer, producer or admin, is opened with."""
    options = {
        "bootstrap_servers": settings.bootstrap_servers.split(","),
        "request_timeout_ms": REQUEST_TIMEOUT_MS,
        "metadata_max_age_ms": settings.metadata_max_age_ms,
    }
    if "bootstrap_timeout_ms" in KafkaConsumer.DEFAULT_CONFIG:  # kafka-python 3's, 30 s
        options["bootstrap_timeout_ms"] = BOOTSTRAP_TIMEOUT_MS
    return options


class LogTruncated(KafkaError):  # type: ignore[misc]  # the client has no types
    """The log ends before an offset it used to reach."""


class TopicLog:
    """One topic, all its partitions. For one thread only.

    It reads with a consumer that has no group, because kafka-python-ng's `poll` waits without
    end for the coordinator of one that has; `commit` uses a second consumer.

    Args:
        on_unreadable: called with partition, offset and what the client says, for each offset
            that the client cannot decode and that is stepped over.
        check_stop: called before each wait; raises to end it.

    Raises (every method):
        KafkaError: the log cannot be read on from here; a new TopicLog may be able to.
    """

    def __init__(
        self,
        settings: Settings,
        group_id: str,
        on_unreadable: Callable[[int, int, str], None],
        check_stop: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._topic = settings.topic
        self._on_unreadable = on_unreadable
        self._check_stop = check_stop
        self._consumer = self._open_consumer()
        self._single_batches: KafkaConsumer | None = None
        self._group = _Group(self._open_consumer, group_id)

    def _open_consumer(self, **options: Any) -> KafkaConsumer:
        if CLIENT_READS_COMMITTED:
            options["isolation_level"] = "read_committed"
        return KafkaConsumer(
            **connection_options(self._settings),
            auto_offset_reset="none",
            enable_auto_commit=False,
            # all of a fetch in one poll: no fetch is sent ahead that a seek would have to wait for
            max_poll_records=2**31 - 1,
            **{"max_partition_fetch_bytes": FETCH_BYTES, **options},
        )

    def create_topic(self) -> None:
        """Create the topic: one partition, the broker's default replication."""
        topic = NewTopic(self._topic, num_partitions=1, replication_factor=1)
        topic.replication_factor = -1  # kafka-python-ng's constructor refuses it
        admin = KafkaAdminClient(**connection_options(self._settings))
        try:
            admin.create_topics([topic])
            log.info("Created the topic %s", self._topic)
        except TopicAlreadyExistsError:
            pass  # another instance was faster
        finally:
            admin.close()

    def partitions(self) -> frozenset[int]:
        """The topic's partitions as the client's metadata has them; none if it does not exist."""
        return frozenset(self._consumer.partitions_for_topic(self._topic) or ())

    def ranges(self, partitions: Collection[int]) -> dict[int, range]:
        """Each partition's offsets from its beginning to its end."""
        keys = self._keys(partitions)
        beginnings = self._consumer.beginning_offsets(keys)
        ends = self._consumer.end_offsets(keys)
        return {key.partition: range(beginnings[key], ends[key]) for key in keys}

    def seek(self, positions: Mapping[int, int]) -> None:
        """From now on read these partitions, and no other, from these offsets."""
        self._consumer.assign(self._keys(positions))
        for partition, offset in positions.items():
            self._consumer.seek(self._key(partition), offset)

    def positions(self) -> dict[int, int]:
        """By partition, the offset that is read next."""
        return {key.partition: self._consumer.position(key) for key in self._consumer.assignment()}

    def backlog(self) -> dict[int, range]:
        """The offsets between position and end, of the partitions known to have some."""
        behind = [
            key
            for key in self._consumer.assignment()
            if (self._consumer.highwater(key) or 0) > self._consumer.position(key)
        ]
        # asked for anew: with read_committed the end is the last stable offset, which the
        # high watermark can be ahead of for as long as a transaction is open
        ends = self._consumer.end_offsets(behind) if behind else {}
        return {
            key.partition: range(position, ends[key])
            for key in behind
            if ends[key] > (position := self._consumer.position(key))
        }

    def poll(self, stops: Mapping[int, int] | None = None) -> list[Sequence[Message]]:
        """Wait up to `POLL_MS` for messages: runs of one partition's, in order.

        Args:
            stops: by partition, the offset that need not be reached; if not given, the end.
        """
        self._check_stop()
        try:
            batches = self._consumer.poll(timeout_ms=POLL_MS)
        except CorruptRecordException as error:
            batches = self._poll_past_unreadable(str(error), stops)
        runs = ([record for record in run if not _is_marker(record)] for run in batches.values())
        return [run for run in runs if run]

    def read(self, ranges: Mapping[int, range]) -> Iterator[Sequence[Message]]:
        """Read the offsets of `ranges` (by partition), which may hold no messages at all.

        Goes by positions, never by a message's arrival: the last offsets of a range may be a
        transaction's marker or compacted away. Changes which partitions are assigned.
        """
        stops = {partition: offsets.stop for partition, offsets in ranges.items()}
        self.seek({partition: offsets.start for partition, offsets in ranges.items()})
        while stops:
            runs = self.poll(stops)
            for run in runs:
                stop = stops[run[0].partition]
                within = [message for message in run if message.offset < stop]
                if within:
                    yield within
            if not runs:
                self._require_log_to_reach(stops)
            positions = self.positions()
            left = {p: stop for p, stop in stops.items() if positions[p] < stop}
            if left and len(left) < len(stops):
                self._consumer.assign(self._keys(left))
            stops = left

    def _require_log_to_reach(self, stops: Mapping[int, int]) -> None:
        for partition, stop in stops.items():
            end = self._consumer.highwater(self._key(partition))
            if end is not None and end < stop:
                raise LogTruncated(f"partition {partition} ends at {end}, not {stop}")

    def _poll_past_unreadable(
        self, error: str, stops: Mapping[int, int] | None
    ) -> dict[TopicPartition, list[Any]]:
        """Read on one batch at a time until past the one that the client cannot decode.

        kafka-python-ng gives nothing of a fetch that holds such a batch, kafka-python 3 never
        returns from a second poll at the same position, and neither says which partition it was.
        """
        if self._single_batches is None:
            # a broker returns a whole batch, however small the limit (KIP-74)
            self._single_batches = self._open_consumer(max_partition_fetch_bytes=1)
        reader = self._single_batches
        assignment = list(self._consumer.assignment())
        if stops:
            ends = {self._key(partition): stop for partition, stop in stops.items()}
        else:
            ends = self._consumer.end_offsets(assignment)
        batches: dict[TopicPartition, list[Any]] = {}
        for key in assignment:
            reader.assign([key])
            reader.seek(key, self._consumer.position(key))
            size, stepped_over = 0, False
            while (offset := reader.position(key)) < ends[key] and size < FETCH_BYTES:
                self._check_stop()
                try:
                    records = reader.poll(timeout_ms=POLL_MS).get(key, [])
                except CorruptRecordException:
                    stepped_over = True
                    offset = reader.position(key)
                    self._on_unreadable(key.partition, offset, error)
                    reader.seek(key, offset + 1)
                    continue
                batches.setdefault(key, []).extend(records)
                size += sum(len(record.value or b"") for record in records)
                if stepped_over or reader.position(key) == offset:
                    break
            self._consumer.seek(key, reader.position(key))
        return batches

    def commit(self, positions: Mapping[int, int]) -> None:
        """Let Kafka's own tools see how far this instance has read. Does not wait."""
        self._group.commit({self._key(p): offset for p, offset in positions.items()})

    def delete_group(self) -> None:
        """Leave no group behind."""
        self._group.close()
        admin = KafkaAdminClient(**connection_options(self._settings))
        try:
            # one operation under two names: kafka-python's first, kafka-python-ng's second
            delete = getattr(admin, "delete_groups", None) or admin.delete_consumer_groups
            delete([self._group.group_id])
        except IncompatibleBrokerVersion:
            pass  # such a broker, the embedded one for example, keeps no groups for long
        finally:
            admin.close()

    def close(self) -> None:
        self._group.close()
        if self._single_batches:
            _close(self._single_batches)
        _close(self._consumer)

    def _key(self, partition: int) -> TopicPartition:
        return TopicPartition(self._topic, partition)

    def _keys(self, partitions: Collection[int]) -> list[TopicPartition]:
        return [self._key(partition) for partition in partitions]


class _Group:
    """The consumer group that the positions are committed under, now and then."""

    def __init__(self, open_consumer: Callable[..., KafkaConsumer], group_id: str) -> None:
        self.group_id = group_id
        self._open_consumer = open_consumer
        self._consumer: KafkaConsumer | None = None
        self._committed: Mapping[TopicPartition, int] = {}
        self._next_attempt = 0.0
        self._pause = FIRST_COMMIT_SECONDS

    def commit(self, positions: Mapping[TopicPartition, int]) -> None:
        now = time.monotonic()
        unchanged = positions == self._committed
        if now < self._next_attempt + (COMMIT_UNCHANGED_SECONDS if unchanged else 0):
            return
        if self._consumer is None:
            self._consumer = self._open_consumer(group_id=self.group_id)
        self._next_attempt = now + self._pause
        # short at first: kafka-python-ng takes its network steps during calls of the next line
        # only, so that the first commit needs several
        self._pause = min(2 * self._pause, COMMIT_SECONDS)
        self._consumer.commit_async(
            # (offset, metadata) and, in kafka-python 3, a leader epoch that has a default
            {key: OffsetAndMetadata(offset, "") for key, offset in positions.items()},
            callback=self._note_outcome,
        )

    def _note_outcome(self, offsets: Mapping[TopicPartition, Any], outcome: object) -> None:
        if isinstance(outcome, Exception):
            log.debug("Committing under %s failed: %s", self.group_id, outcome)
        else:
            self._committed = {key: committed.offset for key, committed in offsets.items()}

    def close(self) -> None:
        if self._consumer:
            _close(self._consumer)
            self._consumer = None


def _close(consumer: KafkaConsumer) -> None:
    """Close in silence: what the client says of the requests it cancels then is no news."""
    client_log = logging.getLogger("kafka")
    level = client_log.level
    client_log.setLevel(logging.CRITICAL)
    try:
        consumer.close(autocommit=False)
    finally:
        client_log.setLevel(level)


def _is_marker(record: Any) -> bool:
    """Whether a record is a transaction marker (KIP-98), which kafka-python-ng hands out.

    No valid message looks like one: its value begins with a zero byte.
    """
    return (
        record.value is not None
        and len(record.value) == 6
        and record.value.startswith(b"\x00\x00")
        and record.key is not None
        and len(record.key) == 4
        and record.key.startswith(b"\x00\x00")
    )
