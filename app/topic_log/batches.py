"""Of a batch of records only those that are wanted are decoded.

Brokers hand out whole batches, of ten thousand records where librdkafka wrote them, and both
clients decode each record of them in Python, some 11 us under the GIL, also those before the
offset that was asked for, which they drop afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.record.default_records import DefaultRecordBatch

from app.topic_log.installed import IS_KAFKA_PYTHON_3


class Fetching:
    """What a consumer fetches, and what it decodes of it. For the thread that polls.

    Attributes:
        last_only: whether of each batch the last record is wanted, not all from the position on.
        stops: the offsets from which on none is wanted, of the partitions that have one.
    """

    def __init__(self, consumer: KafkaConsumer) -> None:
        self.last_only = False
        self.stops: Mapping[TopicPartition, int] = {}
        self._fetcher = fetcher = consumer._fetcher
        if IS_KAFKA_PYTHON_3:
            fetching = self

            class PartitionRecords(type(fetcher).PartitionRecords):  # type: ignore[misc]
                def _unpack_records(self, key: Any, records: Any, *deserializers: Any) -> Any:
                    wanted = fetching._wanted(key, records, self.fetch_offset)
                    return super()._unpack_records(key, wanted, *deserializers)

            fetcher.PartitionRecords = PartitionRecords
        else:
            unpack = fetcher._unpack_message_set
            fetcher._unpack_message_set = lambda key, records: unpack(
                key, self._wanted(key, records, consumer.position(key))
            )

    def _wanted(self, key: TopicPartition, records: Any, offset: int) -> _WantedRecords:
        return _WantedRecords(records, offset, self.stops.get(key), self.last_only)

    def limit(self, size: int) -> None:
        """Fetch up to `size` bytes of a partition; a whole batch in any case (KIP-74)."""
        self._fetcher.config["max_partition_fetch_bytes"] = size


class _WantedRecords:
    """The batches of a fetch, as the client's own `MemoryRecords` gives them."""

    def __init__(self, records: Any, offset: int, stop: int | None, last_only: bool) -> None:
        self._records = records
        self._offset = offset
        self._stop = stop
        self._last_only = last_only

    def next_batch(self) -> Any:
        batch = self._records.next_batch()
        if not isinstance(batch, DefaultRecordBatch):  # none, or one from before Kafka 0.11
            return batch
        if self._stop is not None and batch.base_offset >= self._stop:
            return None
        last = batch.base_offset + batch.last_offset_delta
        first = last if self._last_only else self._offset
        return _WantedBatch(batch._buffer, first, last + 1 if self._stop is None else self._stop)


class _WantedBatch(DefaultRecordBatch):  # type: ignore[misc]  # the client has no types
    _pos: int

    def __init__(self, buffer: bytes, first: int, stop: int) -> None:
        super().__init__(buffer)
        self._first = first - self.base_offset
        self._end = stop - self.base_offset
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
