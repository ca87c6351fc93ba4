"""The record batches that a fetch brought of one partition, decoded only where that is wanted.

Brokers hand out whole batches, of ten thousand records where librdkafka wrote them, and both
clients decode each record in Python, some 11 us under the GIL. Here whoever looks for the newest
record decodes that one, and the ones before it only if it turns out not to do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from kafka.errors import KafkaError
from kafka.record.default_records import DefaultRecordBatch
from kafka.record.memory_records import MemoryRecords

# told of each offset, or of the first of those, whose records cannot be decoded, and why
OnUndecodable = Callable[[int, str], None]


@dataclass(frozen=True)
class Record:
    """One record as received; `timestamp` is in milliseconds since the epoch, -1 if it has none."""

    partition: int
    offset: int
    timestamp: int
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]] = ()


class Batches:
    """What one answer brought of one partition. For the thread that follows.

    Attributes:
        stop: the offset after the last whole batch; 0 without one.
    """

    def __init__(
        self, partition: int, data: bytes | memoryview, aborted: Sequence[tuple[int, int]] = ()
    ) -> None:
        """
        Args:
            data: the batches, one after the other; the last may be cut off.
            aborted: the aborted transactions among them, as the broker tells whoever reads
                committed records only: id of the producer, first offset (KIP-98).

        Raises:
            KafkaError: the data is no sequence of batches.
        """
        self._partition = partition
        self._batches: list[_Batch] = []
        self.stop = 0
        if not data:
            return  # as for nearly all of a thousand partitions, nearly always
        self._batches = _whole_batches(data)
        _mark_unreadable(self._batches, aborted)
        if self._batches:
            self.stop = self._batches[-1].stop

    def newest_first(self, within: range, on_undecodable: OnUndecodable) -> Iterator[Record]:
        """Give the records whose offsets are `within`, the last one first."""
        for batch in reversed(self._batches):
            if batch.is_readable and batch.start < within.stop and batch.stop > within.start:
                yield from batch.newest_first(self._partition, within, on_undecodable)


@dataclass
class _Batch:
    """
    Attributes:
        batch: as the client has it; magic 2, or one from before Kafka 0.11.
        start, stop: the offsets it covers, whether there are records at them or not.
        is_readable: False for transaction markers and for what was aborted.
    """

    batch: Any
    start: int
    stop: int
    is_readable: bool = True

    @property
    def is_control(self) -> bool:
        return bool(getattr(self.batch, "is_control_batch", False))

    @property
    def is_transactional(self) -> bool:
        return bool(getattr(self.batch, "is_transactional", False))

    @property
    def producer_id(self) -> int:
        # not every client has a property for it
        producer_id: int = self.batch._header_data[9]
        return producer_id

    def newest_first(
        self, partition: int, within: range, on_undecodable: OnUndecodable
    ) -> Iterator[Record]:
        try:
            if not self.batch.validate_crc():
                raise ValueError("its checksum is wrong")
            if isinstance(self.batch, DefaultRecordBatch):
                batch = _DecodedBatch(self.batch, partition)
                yield from batch.newest_first(within, on_undecodable)
            else:
                yield from _legacy_records(self.batch, partition, within)
        except Exception as error:  # noqa: BLE001  # each codec has errors of its own
            # nothing in the batch can be told from anything else
            on_undecodable(max(self.start, within.start), _reason(error))


@dataclass(frozen=True)
class _Undecodable:
    offset: int
    why: str


class _DecodedBatch(DefaultRecordBatch):  # type: ignore[misc]  # the client has no types
    """A batch whose records are decoded by their index in it."""

    _pos: int

    def __init__(self, batch: DefaultRecordBatch, partition: int) -> None:
        super().__init__(batch._buffer)
        self._partition = partition
        self._maybe_uncompress()
        self._first_record = self._pos
        # but for those that compaction took
        self._has_every_offset = self._num_records == self.last_offset_delta + 1

    def newest_first(self, within: range, on_undecodable: OnUndecodable) -> Iterator[Record]:
        for record in self._decoded(within):
            if isinstance(record, _Undecodable):
                on_undecodable(record.offset, record.why)
            elif record.offset in within:
                yield record

    def _decoded(self, within: range) -> Iterator[Record | _Undecodable]:
        indexes = range(self._num_records)
        if self._has_every_offset:
            start = max(within.start - self.base_offset, 0)
            indexes = range(start, min(within.stop - self.base_offset, self._num_records))
            # most of the time it is the only one that is looked at
            yield from self._decode(indexes[-1:])
            indexes = indexes[:-1]
        yield from reversed(self._decode(indexes))

    def _decode(self, indexes: range) -> list[Record | _Undecodable]:
        """Decode the records from the first of the indexes to the last."""
        if not indexes:
            return []
        self._pos = self._first_record
        for _ in range(indexes.start):
            self._step_over()
        return [self._decode_next(index) for index in indexes]

    def _decode_next(self, index: int) -> Record | _Undecodable:
        at = self._pos
        try:
            record = self._read_msg()
        except (KafkaError, ValueError, IndexError) as error:
            self._pos = at
            self._step_over()
            # where compaction took some only the record itself could tell its offset
            offset = self.base_offset + (index if self._has_every_offset else 0)
            return _Undecodable(offset, _reason(error))
        return Record(
            self._partition, record.offset, record.timestamp, record.value, record.headers
        )

    def _step_over(self) -> None:
        """Each record begins with its length, a zigzag varint (KIP-98)."""
        buffer, position = self._buffer, self._pos
        byte = buffer[position]
        position += 1
        length, shift = byte & 0x7F, 7
        while byte & 0x80:
            byte = buffer[position]
            position += 1
            length |= (byte & 0x7F) << shift
            shift += 7
        self._pos = position + (length >> 1)


def _legacy_records(batch: Any, partition: int, within: range) -> Iterator[Record]:
    """From before Kafka 0.11: magic 0, which has no timestamp, or 1."""
    records = [
        Record(
            partition,
            record.offset,
            -1 if record.timestamp is None else record.timestamp,
            record.value,
        )
        for record in batch
    ]
    return (record for record in reversed(records) if record.offset in within)


def _whole_batches(data: bytes | memoryview) -> list[_Batch]:
    batches = []
    records = MemoryRecords(data)
    while (batch := records.next_batch()) is not None:
        if isinstance(batch, DefaultRecordBatch):
            start = batch.base_offset
            batches.append(_Batch(batch, start, start + batch.last_offset_delta + 1))
        else:
            batches.append(_Batch(batch, *_legacy_offsets(batch)))
    return batches


def _legacy_offsets(batch: Any) -> tuple[int, int]:
    """Give the first offset and the one after the last; of a batch that does not decompress only
    the last is known."""
    try:
        # of a copy: one that is decompressed has lost what its checksum is of
        offsets = [record.offset for record in MemoryRecords(batch._buffer).next_batch()]
    except Exception:  # noqa: BLE001  # it is told of when its records are wanted
        return batch._offset, batch._offset + 1
    return offsets[0], offsets[-1] + 1


def _mark_unreadable(batches: Sequence[_Batch], aborted: Sequence[tuple[int, int]]) -> None:
    """Mark what is not for readers: markers, and the batches of each aborted transaction, which
    go from its first offset to its marker."""
    to_come = sorted(aborted, key=lambda transaction: transaction[1])
    aborting: set[int] = set()
    for batch in batches:
        while to_come and to_come[0][1] < batch.stop:
            aborting.add(to_come.pop(0)[0])
        if batch.is_control:
            aborting.discard(batch.producer_id)
            batch.is_readable = False
        elif batch.is_transactional and batch.producer_id in aborting:
            batch.is_readable = False


def _reason(error: Exception) -> str:
    return str(error) or repr(error)
