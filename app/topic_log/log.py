"""One topic's log, read by offset."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from kafka import KafkaConsumer, TopicPartition
from kafka.admin import NewTopic
from kafka.errors import (
    ClusterAuthorizationFailedError,
    CorruptRecordException,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
)

from app.message import Message
from app.topic_log.admin import admin_client
from app.topic_log.batches import Fetching
from app.topic_log.client import (
    RECEIVE_BYTES,
    NotAllowed,
    TopicLogError,
    connection_options,
    open_client,
)
from app.topic_log.group import Group, close_quietly
from app.topic_log.installed import CLIENT_READS_COMMITTED, IS_KAFKA_PYTHON_3
from app.topic_log.metadata import TopicMetadata
from app.topic_log.reach import reaching

if IS_KAFKA_PYTHON_3:
    from app.topic_log.threadless import ThreadlessClient
else:
    from app.topic_log.ng_metadata import MetadataClient

if TYPE_CHECKING:
    from app.settings import Settings

log = logging.getLogger(__name__)

POLL_MS = 500
# what is read is there, unless there is no message in it
READ_MS = 10
FETCH_BYTES = 256 * 1024
# a fetch of a few messages shall not bring the many that came after them
MESSAGE_BYTES = 1024
# kafka-python-ng asks `keep_waiting` how long
OFFSETS_OPTIONS = {"timeout_ms": 5_000} if IS_KAFKA_PYTHON_3 else {}
# kafka-python 3 waits for what it asks the brokers about a position (KIP-320)
POSITION_OPTIONS = {"timeout_ms": 0} if IS_KAFKA_PYTHON_3 else {}
# how the key of a marker ends: version 0, then 0 for an abort or 1 for a commit (KIP-98)
ABORT = b"\x00\x00"


class LogTruncated(TopicLogError):
    """The log ends before an offset it used to reach."""


class Listener(Protocol):
    """What a log tells the one that reads it."""

    def before_wait(self) -> None:
        """Called before each wait, some seconds long at most; may raise to end the reading."""

    def skipped_unreadable(self, partition: int, offset: int, detail: str) -> None:
        """The client cannot decode what is at this offset, and it is stepped over."""

    def saw_aborted(self) -> None:
        """There are aborted transactions, and this client hands out their messages too."""

    def may_not_commit(self) -> None:
        """The ACLs forbid the group: the positions are not committed."""


class TopicLog:
    """One topic, all its partitions. For one thread only.

    It reads with a consumer that has no group, because kafka-python-ng's `poll` waits without
    end for the coordinator of one that has; `commit` uses a second consumer.

    Raises (every method):
        KafkaError: the log cannot be read on from here; a new TopicLog may be able to.
    """

    def __init__(self, settings: Settings, group_id: str, listener: Listener) -> None:
        self._settings = settings
        self._topic = settings.topic
        self._listener = listener
        self._consumer = self._open_consumer()
        self._fetching = Fetching(self._consumer)
        self._metadata = TopicMetadata(self._consumer, self._topic, listener.before_wait)
        self._single_batches: KafkaConsumer | None = None
        self._group = Group(group_id, self._open_consumer, listener.may_not_commit)

    def _open_consumer(self, **options: Any) -> KafkaConsumer:
        if CLIENT_READS_COMMITTED:
            level = self._settings.isolation_level or "READ_COMMITTED"
            options["isolation_level"] = level.lower()
        if IS_KAFKA_PYTHON_3:
            options["metrics_enabled"] = False  # nobody reads what it measures
            if "group_id" not in options:  # a group's commits are not waited for
                options["kafka_client"] = ThreadlessClient
        else:
            options["kafka_client"] = MetadataClient
            options["sock_chunk_bytes"] = RECEIVE_BYTES
        with reaching(self._settings):
            consumer = open_client(
                KafkaConsumer,
                **connection_options(self._settings),
                auto_offset_reset="none",
                enable_auto_commit=False,
                # all of a fetch in one poll: none is sent ahead that a seek would have to wait for
                max_poll_records=2**31 - 1,
                **options,
            )
        # kafka-python 3.0.12 takes this as an option, and does not hand it on
        consumer._client.cluster.config["allow_auto_create_topics"] = False
        return consumer

    def create_topic(self) -> None:
        """Create the topic: one partition, the broker's default replication.

        Raises:
            NotAllowed: by the ACLs.
        """
        topic = NewTopic(self._topic, num_partitions=1, replication_factor=1)
        topic.replication_factor = -1  # kafka-python-ng's constructor refuses it
        try:
            with admin_client(self._settings) as admin:
                admin.create_topics([topic])
            log.info("Created the topic %s", self._topic)
        except TopicAlreadyExistsError:
            pass  # another instance was faster
        except (TopicAuthorizationFailedError, ClusterAuthorizationFailedError) as error:
            raise NotAllowed(
                f"the topic {self._topic} does not exist, and the ACLs do not let "
                f"{self._settings.who} create it: it needs CREATE on the topic or the cluster"
            ) from error

    @property
    def topic_id(self) -> str | None:
        return self._metadata.topic_id

    def partitions(self) -> frozenset[int]:
        """The topic's partitions as far as the client knows by now; none if it does not exist."""
        return self._metadata.partitions()

    def ranges(self, partitions: Collection[int]) -> dict[int, range]:
        """Each partition's offsets from its beginning to its end."""
        keys = self._keys(partitions)
        beginnings = self._consumer.beginning_offsets(keys, **OFFSETS_OPTIONS)
        ends = self._consumer.end_offsets(keys, **OFFSETS_OPTIONS)
        return {key.partition: range(beginnings[key], ends[key]) for key in keys}

    def seek(self, positions: Mapping[int, int]) -> None:
        """From now on read these partitions, and no other, from these offsets."""
        self._consumer.assign(self._keys(positions))
        for partition, offset in positions.items():
            self._consumer.seek(self._key(partition), offset)

    def positions(self) -> dict[int, int]:
        """By partition, the offset that is read next."""
        return {
            key.partition: _position(self._consumer, key) for key in self._consumer.assignment()
        }

    def ends(self) -> dict[int, int]:
        """By partition, where the log ended when it was last fetched from."""
        ends = {key.partition: self._consumer.highwater(key) for key in self._consumer.assignment()}
        return {partition: end for partition, end in ends.items() if end is not None}

    def backlog(self) -> dict[int, range]:
        """The offsets between position and end, as the last fetch told, of the partitions that
        have some."""
        return {
            key.partition: range(position, end)
            for key in self._consumer.assignment()
            if (end := self._fetching.end(key)) > (position := _position(self._consumer, key))
        }

    def wait_for_messages(self) -> dict[int, Message]:
        """Wait up to `POLL_MS` for messages, and give one by partition: the last before the end
        or, where the `backlog` begins with it, any."""
        self._fetching.limit(MESSAGE_BYTES, POLL_MS)
        self._fetching.stops, self._fetching.last_only = {}, True
        try:
            return {run[0].partition: run[-1] for run in self._poll(POLL_MS)}
        finally:
            self._fetching.last_only = False

    def _poll(
        self, timeout_ms: int, stops: Mapping[int, int] | None = None
    ) -> list[Sequence[Message]]:
        """Wait up to `timeout_ms` for messages: runs of one partition's, in order.

        Args:
            stops: by partition, the offset that need not be reached; if not given, the end.
        """
        self._listener.before_wait()
        try:
            batches = self._consumer.poll(timeout_ms=timeout_ms)
        except CorruptRecordException as error:
            batches = self._poll_past_unreadable(str(error), stops)
        runs = (self._without_markers(run) for run in batches.values())
        return [run for run in runs if run]

    def _without_markers(self, records: Sequence[Any]) -> Sequence[Message]:
        markers = [record for record in records if _is_marker(record)]
        if not markers:
            return records
        if any(record.key.endswith(ABORT) for record in markers):
            self._listener.saw_aborted()
        return [record for record in records if not _is_marker(record)]

    def read(self, ranges: Mapping[int, range]) -> Iterator[Sequence[Message]]:
        """Read the offsets of `ranges` (by partition), which may hold no messages at all.

        Goes by positions, never by a message's arrival: the last offsets of a range may be a
        transaction's marker or compacted away. Changes which partitions are assigned.
        """
        widest = max(map(len, ranges.values()))
        self._fetching.limit(min(widest * MESSAGE_BYTES, FETCH_BYTES), READ_MS)
        stops = {partition: offsets.stop for partition, offsets in ranges.items()}
        self._fetching.stops = {self._key(partition): stop for partition, stop in stops.items()}
        self.seek({partition: offsets.start for partition, offsets in ranges.items()})
        while stops:
            runs = self._poll(READ_MS, stops)
            for run in runs:
                stop = stops[run[0].partition]
                within = [message for message in run if message.offset < stop]
                if within:
                    yield within
            if not runs:
                self.partitions()  # what is gone for good shows here only
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

        kafka-python-ng gives nothing of a fetch that holds such a batch, and neither client says
        which partition it was.
        """
        if self._single_batches is None:
            # a broker returns a whole batch, however small the limit (KIP-74)
            self._single_batches = self._open_consumer(max_partition_fetch_bytes=1)
        reader = self._single_batches
        assignment = list(self._consumer.assignment())
        if stops:
            ends = {self._key(partition): stop for partition, stop in stops.items()}
        else:
            ends = self._consumer.end_offsets(assignment, **OFFSETS_OPTIONS)
        batches: dict[TopicPartition, list[Any]] = {}
        for key in assignment:
            reader.assign([key])
            reader.seek(key, _position(self._consumer, key))
            size, stepped_over = 0, False
            while (offset := _position(reader, key)) < ends[key] and size < FETCH_BYTES:
                self._listener.before_wait()
                try:
                    records = reader.poll(timeout_ms=POLL_MS).get(key, [])
                except CorruptRecordException:
                    stepped_over = True
                    offset = _position(reader, key)
                    self._listener.skipped_unreadable(key.partition, offset, error)
                    reader.seek(key, offset + 1)
                    continue
                batches.setdefault(key, []).extend(records)
                size += sum(len(record.value or b"") for record in records)
                if stepped_over or _position(reader, key) == offset:
                    break
            self._consumer.seek(key, _position(reader, key))
        return batches

    def commit(self, positions: Mapping[int, int]) -> None:
        """Let Kafka's own tools see how far this instance has read. Does not wait."""
        self._group.commit({self._key(p): offset for p, offset in positions.items()})

    def delete_group(self) -> None:
        """Leave no group behind."""
        self._group.delete(self._settings)

    def close(self) -> None:
        with contextlib.ExitStack() as closing:
            for consumer in filter(None, (self._consumer, self._single_batches)):
                closing.callback(close_quietly, consumer)
            closing.callback(self._group.close)

    def _key(self, partition: int) -> TopicPartition:
        return TopicPartition(self._topic, partition)

    def _keys(self, partitions: Collection[int]) -> list[TopicPartition]:
        return [self._key(partition) for partition in partitions]


def _position(consumer: KafkaConsumer, key: TopicPartition) -> int:
    offset: int = consumer.position(key, **POSITION_OPTIONS)
    return offset


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
