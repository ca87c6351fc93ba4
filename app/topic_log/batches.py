"""Of a batch of records only those that are wanted are decoded.

Brokers hand out whole batches, of ten thousand records where librdkafka wrote them, and both
clients decode each record of them in Python, some 11 us under the GIL, also those before the
offset that was asked for, which they drop afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import CorruptRecordException
from kafka.record.default_records import DefaultRecordBatch

from app.topic_log.installed import IS_KAFKA_PYTHON_3


class Fetching:
    """What a consumer fetches, and what it decodes of it. For the thread that polls.

    Attributes:
        last_only: whether the last record before the end is wanted, not all from the position on.
        stops: the offsets from which on none is wanted, of the partitions that have one.
    """

    def __init__(self, consumer: KafkaConsumer) -> None:
        self.last_only = False
        self.stops: Mapping[TopicPartition, int] = {}
        self._consumer = consumer
        self._fetcher = fetcher = consumer._fetcher
        self._stable_ends: dict[TopicPartition, int] = {}
        if IS_KAFKA_PYTHON_3:
            fetching, parse = self, fetcher._parse_fetched_data

            class PartitionRecords(type(fetcher).PartitionRecords):  # type: ignore[misc]
                def _unpack_records(self, key: Any, records: Any, *deserializers: Any) -> Any:
                    wanted = _WantedRecords(records, fetching._range_of(key, self.fetch_offset))
                    return super()._unpack_records(key, wanted, *deserializers)

                def take(self, n: int | None = None) -> Any:
                    try:
                        return super().take(n)
                    except CorruptRecordException:
                        self.drain()  # or the next poll never returns
                        raise

            def note_stable_end(fetch: Any) -> Any:
                self._stable_ends[fetch.topic_partition] = fetch.partition_data.last_stable_offset
                return parse(fetch)

            fetcher.PartitionRecords = PartitionRecords
            fetcher._parse_fetched_data = note_stable_end
        else:
            unpack = fetcher._unpack_message_set
            fetcher._unpack_message_set = lambda key, records: unpack(
                key, _WantedRecords(records, self._range_of(key, consumer.position(key)))
            )

    def limit(self, size: int, wait_ms: int) -> None:
        """Fetch up to `size` bytes of a partition, a whole batch in any case (KIP-74), and let the
        broker wait up to `wait_ms` for there to be something."""
        self._fetcher.config["max_partition_fetch_bytes"] = size
        self._fetcher.config["fetch_max_wait_ms"] = wait_ms

    def end(self, key: TopicPartition) -> int:
        """Where what is handed out ended at the last fetch, 0 where that is not known: the last
        stable offset (KIP-98), or the high watermark where uncommitted records are read too."""
        stable = self._stable_ends.get(key, -1)
        return stable if stable >= 0 else self._consumer.highwater(key) or 0

    def _range_of(self, key: TopicPartition, position: int) -> Callable[[int, int], range]:
        """Of a batch's offsets, the first and the last, those that are wanted."""

        def wanted(first: int, last: int) -> range:
            if not self.last_only:
                return range(position, self.stops.get(key, last + 1))
            newest = last if last + 1 >= self.end(key) else max(first, position)
            return range(newest, newest + 1)

        return wanted


class _WantedRecords:
    """The batches of a fetch, as the client's own `MemoryRecords` gives them."""

    def __init__(self, records: Any, range_of: Callable[[int, int], range]) -> None:
        self._records = records
        self._range_of = range_of
        self._is_first = True

    def next_batch(self) -> Any:
        batch = self._records.next_batch()
        if not isinstance(batch, DefaultRecordBatch):  # none, or one from before Kafka 0.11
            return batch
        first = batch.base_offset
        wanted = self._range_of(first, first + batch.last_offset_delta)
        if self._is_first:
            # a position in a gap would stay there if it were given nothing
            wanted = range(wanted.start, max(wanted.stop, first + 1))
            self._is_first = False
        return _WantedBatch(batch._buffer, wanted) if wanted.stop > first else None


class _WantedBatch(DefaultRecordBatch):  # type: ignore[misc]  # the client has no types
    _pos: int

    def __init__(self, buffer: bytes, wanted: range) -> None:
        super().__init__(buffer)
        self._first = wanted.start - self.base_offset
        self._end = wanted.stop - self.base_offset
        # but for those that compaction took
        self._has_every_offset = self._num_records == self.last_offset_delta + 1

    def __iter__(self) -> Any:
        super().__iter__()
        if self._has_every_offset and self._next_record_index == 0:
            self._skip(min(self._first, self._num_records))
        return self

    def __next__(self) -> Any:
        if self._has_every_offset and self._next_record_index >= self._end:
            raise StopIteration
        return super().__next__()

    def _skip(self, count: int) -> None:
        """Each record begins with its length, a zigzag varint (KIP-98)."""
        buffer, position = self._buffer, self._pos
        for _ in range(count):
            byte = buffer[position]
            position += 1
            length, shift = byte & 0x7F, 7
            while byte & 0x80:
                byte = buffer[position]
                position += 1
                length |= (byte & 0x7F) << shift
                shift += 7
            position += length >> 1
        self._pos = position
        self._next_record_index = max(count, 0)
