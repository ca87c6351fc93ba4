"""What is decoded of a batch, against decoding all of it and dropping what is not wanted."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from kafka.record.memory_records import MemoryRecords

from app.topic_log.batches import _WantedRecords

BASE = 1000
NONE, GZIP = 0, 1

lengths = st.integers(0, 10_000) | st.integers(0, 100)
gaps = st.sampled_from([0, 0, 0, 1, 5])  # compacted away


def batch(records: list[tuple[int, int]], compression: int) -> bytes:
    """As a broker returns it: each record's gap to the one before, and length."""
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=compression,
        is_transactional=0,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        batch_size=10**9,
    )
    offset = -1
    for gap, length in records:
        offset += 1 + gap
        builder.append(offset, 0, None, b"x" * length, [("key", b"value")] * (length % 3))
    return struct.pack(">q", BASE) + bytes(builder.build())[8:]


def from_to(start: int, stop: int | None) -> Callable[[int, int], range]:
    return lambda first, last: range(start, last + 1 if stop is None else stop)


def the_last(first: int, last: int) -> range:
    return range(last, last + 1)


def decoded(records) -> list[tuple[int, bytes]]:
    found = []
    while (one := records.next_batch()) is not None:
        assert one.validate_crc()
        found += [(record.offset, record.value) for record in one]
    return found


@given(
    st.lists(st.tuples(gaps, lengths), min_size=1, max_size=20),
    st.sampled_from([NONE, GZIP]),
    st.integers(BASE - 5, BASE + 60),
    st.integers(BASE - 5, BASE + 60) | st.none(),
)
def test_gives_every_record_that_is_wanted_as_the_client_does(records, compression, offset, stop):
    data = batch(records, compression)
    wanted = decoded(_WantedRecords(MemoryRecords(data), from_to(offset, stop)))
    all_of_it = decoded(MemoryRecords(data))

    def within(found: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
        return [one for one in found if offset <= one[0] and (stop is None or one[0] < stop)]

    assert within(wanted) == within(all_of_it)
    newest = decoded(_WantedRecords(MemoryRecords(data), the_last))
    assert newest[-1] == all_of_it[-1]


@pytest.fixture
def read_offsets(monkeypatch) -> list[int]:
    """Of the records that are decoded, by the client too."""
    read = DefaultRecordBatch._read_msg
    offsets: list[int] = []

    def note(batch):
        record = read(batch)
        offsets.append(record.offset - BASE)
        return record

    monkeypatch.setattr(DefaultRecordBatch, "_read_msg", note)
    return offsets


def test_decodes_no_record_before_and_after_the_wanted_ones(read_offsets):
    data = batch([(0, 100)] * 1000, NONE)
    later = struct.pack(">q", BASE + 1000) + data[8:]
    decoded(_WantedRecords(MemoryRecords(data + later), from_to(BASE + 990, BASE + 995)))
    assert read_offsets == list(range(990, 995))


@pytest.mark.parametrize("length", [0, 60, 9_000, 1_500_000])
def test_steps_over_records_of_any_length(length):
    data = batch([(0, length), (0, 1)], NONE)
    wanted = _WantedRecords(MemoryRecords(data), from_to(BASE + 1, None))
    assert decoded(wanted) == [(BASE + 1, b"x")]


def test_decodes_the_last_record_of_each_batch_where_no_other_is_wanted(read_offsets):
    data = batch([(0, 100)] * 1000, NONE)
    later = struct.pack(">q", BASE + 1000) + data[8:]
    decoded(_WantedRecords(MemoryRecords(data + later), the_last))
    assert read_offsets == [999, 1999]


def test_gives_a_record_after_the_stop_where_there_is_none_before_it():
    """Or the position would not move past what compaction took."""
    wanted = _WantedRecords(MemoryRecords(batch([(0, 10)] * 3, NONE)), from_to(BASE - 9, BASE - 5))
    assert [offset for offset, _ in decoded(wanted)] == [BASE]


def test_gives_no_batch_from_the_stop_on():
    data = batch([(0, 10)] * 10, NONE)
    later = struct.pack(">q", BASE + 10) + data[8:]
    wanted = _WantedRecords(MemoryRecords(data + later), from_to(BASE, BASE + 10))
    assert [record.offset for record in wanted.next_batch()] == list(range(BASE, BASE + 10))
    assert wanted.next_batch() is None
