"""What is decoded of a fetch, against decoding all of it and dropping what is not wanted."""

from __future__ import annotations

import struct
import zlib

import pytest
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st
from kafka.errors import KafkaError
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from kafka.record.legacy_records import LegacyRecordBatchBuilder
from kafka.record.memory_records import MemoryRecords

from app.topic_log.batches import Batches

BASE = 1000
NONE, GZIP, SNAPPY, LZ4, ZSTD = range(5)
# where a batch has its checksum, its attributes and its producer's id, and where what the
# checksum covers begins: https://kafka.apache.org/documentation/#recordbatch
CRC, ATTRIBUTES, PRODUCER_ID = 17, 21, 43
TRANSACTIONAL, CONTROL = 0x10, 0x20

lengths = st.integers(0, 10_000) | st.integers(0, 100)
gaps = st.sampled_from([0, 0, 0, 1, 5])  # compacted away


def batch(
    records: list[tuple[int, int]],
    compression: int = NONE,
    base: int = BASE,
    producer: int = -1,
    flags: int = 0,
) -> bytes:
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
    data = bytearray(struct.pack(">q", base) + bytes(builder.build())[8:])
    struct.pack_into(">q", data, PRODUCER_ID, producer)
    (attributes,) = struct.unpack_from(">h", data, ATTRIBUTES)
    struct.pack_into(">h", data, ATTRIBUTES, attributes | flags)
    return sealed(data)


def sealed(data: bytearray) -> bytes:
    struct.pack_into(">I", data, CRC, crc32c(bytes(data[ATTRIBUTES:])))
    return bytes(data)


def fail(offset: int, why: str) -> None:
    raise AssertionError(f"{offset} is decodable, {why}")


def all_of(data: bytes) -> list[tuple[int, bytes]]:
    records, found = MemoryRecords(data), []
    while (one := records.next_batch()) is not None:
        found += [(record.offset, record.value) for record in one]
    return found


@given(
    st.lists(st.lists(st.tuples(gaps, lengths), min_size=1, max_size=20), min_size=1, max_size=3),
    st.sampled_from([NONE, GZIP]),
    st.integers(BASE - 5, BASE + 60),
    st.integers(BASE - 5, BASE + 200),
)
def test_gives_every_record_that_is_wanted_and_the_last_one_first(
    batches, compression, start, stop
):
    data, base = b"", BASE
    for records in batches:
        data += batch(records, compression, base)
        base = Batches(0, data).stop
    found = [
        (record.offset, record.value)
        for record in Batches(0, data).newest_first(range(start, stop), fail)
    ]
    wanted = [one for one in all_of(data) if start <= one[0] < stop]
    assert found == wanted[::-1]


@pytest.fixture
def read_offsets(monkeypatch) -> list[int]:
    """Of the records that are decoded."""
    read = DefaultRecordBatch._read_msg
    offsets: list[int] = []

    def note(batch):
        record = read(batch)
        offsets.append(record.offset - BASE)
        return record

    monkeypatch.setattr(DefaultRecordBatch, "_read_msg", note)
    return offsets


def test_decodes_the_last_record_and_no_other_where_that_one_is_taken(read_offsets):
    data = batch([(0, 100)] * 1000) + batch([(0, 100)] * 1000, base=BASE + 1000)
    newest_first = Batches(0, data).newest_first(range(BASE, BASE + 2000), fail)
    assert next(newest_first).offset == BASE + 1999
    assert read_offsets == [1999]


def test_decodes_no_record_before_and_after_the_wanted_ones(read_offsets):
    data = batch([(0, 100)] * 1000) + batch([(0, 100)] * 1000, base=BASE + 1000)
    list(Batches(0, data).newest_first(range(BASE + 990, BASE + 995), fail))
    assert sorted(read_offsets) == list(range(990, 995))


@pytest.mark.parametrize("length", [0, 60, 9_000, 1_500_000])
def test_steps_over_records_of_any_length(length):
    data = batch([(0, length), (0, 1)])
    (record,) = Batches(0, data).newest_first(range(BASE + 1, BASE + 9), fail)
    assert (record.offset, record.value) == (BASE + 1, b"x")


def test_a_batch_that_compaction_emptied_was_passed_all_the_same():
    """Of an idempotent producer the header stays."""
    data = bytearray(batch([(0, 1)] * 5))
    length, (records_at,) = 61, (57,)
    struct.pack_into(">i", data, records_at, 0)
    del data[length:]
    struct.pack_into(">i", data, 8, length - 12)
    batches = Batches(0, sealed(data))
    assert batches.stop == BASE + 5
    assert list(batches.newest_first(range(BASE, BASE + 5), fail)) == []


def test_what_is_cut_off_was_not_passed():
    data = batch([(0, 10)] * 3) + batch([(0, 10)] * 3, base=BASE + 3)[:-1]
    assert Batches(0, data).stop == BASE + 3
    assert Batches(0, data[:100]).stop == 0
    assert Batches(0, b"").stop == 0


def test_gives_no_marker_and_nothing_that_was_aborted():
    def transactional(base: int, producer: int, flags: int = 0) -> bytes:
        return batch([(0, 1)], base=base, producer=producer, flags=TRANSACTIONAL | flags)

    data = (
        batch([(0, 1)], base=0)
        + transactional(1, producer=7)  # aborted
        + transactional(2, producer=8)
        + batch([(0, 1)], base=3, producer=7)  # of the same producer, in no transaction
        + transactional(4, producer=7, flags=CONTROL)
        + transactional(5, producer=7)
        + transactional(6, producer=7, flags=CONTROL)
        + transactional(7, producer=8, flags=CONTROL)
        + transactional(8, producer=8)  # aborted
        + transactional(9, producer=8, flags=CONTROL)
    )
    batches = Batches(0, data, aborted=[(8, 8), (7, 1)])
    offsets = [record.offset for record in batches.newest_first(range(10), fail)]
    assert offsets == [5, 3, 2, 0]
    assert batches.stop == 10


def test_steps_over_a_record_that_cannot_be_decoded_and_gives_those_around_it():
    data = bytearray(batch([(0, 1)] * 5))  # of length 1: one header each
    at = data.index(b"key", data.index(b"key", data.index(b"key") + 1) + 1)
    data[at] = 0xFF
    skipped = []
    records = Batches(0, sealed(data)).newest_first(
        range(BASE, BASE + 5), lambda offset, why: skipped.append((offset, "utf-8" in why))
    )
    assert [record.offset - BASE for record in records] == [4, 3, 1, 0]
    assert skipped == [(BASE + 2, True)]


@pytest.mark.parametrize("compression", [NONE, GZIP])
def test_of_a_batch_with_a_wrong_checksum_nothing_is_given(compression):
    data = batch([(0, 100)] * 5, compression)
    damaged = data[:-3] + bytes([data[-3] ^ 1]) + data[-2:]
    skipped = []
    batches = Batches(0, batch([(0, 1)], base=0) + damaged)
    records = batches.newest_first(range(BASE + 5), lambda *told: skipped.append(told))
    assert [record.offset for record in records] == [0]
    assert skipped == [(BASE, "its checksum is wrong")]


@pytest.mark.parametrize("at", [0, 12])
@pytest.mark.parametrize("compression", [GZIP, SNAPPY, LZ4, ZSTD])
def test_a_batch_that_does_not_decompress_is_told_of_and_those_around_it_are_given(compression, at):
    data = bytearray(batch([(0, 100)] * 5, compression))
    data[61 + at : 71 + at] = b"not at all"
    skipped = []
    batches = Batches(0, batch([(0, 1)], base=0) + sealed(data) + batch([(0, 1)], base=2000))
    records = batches.newest_first(range(3000), lambda offset, why: skipped.append(offset))
    assert [record.offset for record in records] == [2000, 0]
    assert skipped == [BASE]


@pytest.mark.parametrize("magic", [0, 1])
@pytest.mark.parametrize("compression", [NONE, GZIP])
def test_reads_what_was_written_before_kafka_0_11(magic, compression):
    builder = LegacyRecordBatchBuilder(magic, compression, batch_size=10_000)
    for offset in range(3):
        builder.append(offset, timestamp=77, key=None, value=b"%d" % offset)
    batches = Batches(0, bytes(builder.build()))
    found = [
        (record.offset, record.timestamp, record.value)
        for record in batches.newest_first(range(1, 9), fail)
    ]
    timestamp = 77 if magic else -1
    assert found == [(2, timestamp, b"2"), (1, timestamp, b"1")]
    assert batches.stop == 3


@pytest.mark.parametrize("at", [0, 12])
@pytest.mark.parametrize(
    ("magic", "compression"), [(0, GZIP), (0, SNAPPY), (1, GZIP), (1, SNAPPY), (1, LZ4)]
)
def test_what_does_not_decompress_is_told_of_in_older_formats_too(magic, compression, at):
    builder = LegacyRecordBatchBuilder(magic, compression, batch_size=10_000)
    builder.append(0, timestamp=77, key=None, value=b"x" * 1000)
    data = bytearray(builder.build())
    value = 26 if magic == 0 else 34  # of the message that holds the others
    data[value + at : value + at + 10] = b"not at all"
    struct.pack_into(">I", data, 12, zlib.crc32(data[16:]))
    skipped = []
    batches = Batches(0, batch([(0, 1)], base=-1) + bytes(data) + batch([(0, 1)]))
    records = batches.newest_first(range(3000), lambda offset, why: skipped.append(offset))
    assert [record.offset for record in records] == [BASE]
    assert skipped == [0]


def test_what_is_no_batch_is_an_error():
    with pytest.raises(KafkaError):
        Batches(0, b"\0" * 100)
