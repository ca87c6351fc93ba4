"""Locate against the obvious slow reading from the beginning."""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections import defaultdict
from operator import attrgetter

from hypothesis import given, settings
from hypothesis import strategies as st

from app.following.locate import ENOUGH, GROWTH, Scan
from app.message import StateMessage, parse_message
from app.message_errors import InvalidMessage
from app.topic_log.batches import Record


class RecordedLog:
    """A log in memory, which offsets may be missing from; it keeps count of what is read."""

    def __init__(self, records: list[Record], run_length: int = 3) -> None:
        self._logs: dict[int, list[Record]] = defaultdict(list)
        for record in records:
            self._logs[record.partition].append(record)
        self._run_length = run_length
        self.windows = 0
        self.validated: list[tuple[int, int]] = []

    def locate(self, ranges: dict[int, range]) -> dict[int, StateMessage]:
        """Each partition's tail in its range."""
        found = {partition: self._scan(partition, ranges[partition]) for partition in ranges}
        return {partition: tail for partition, tail in found.items() if tail}

    def _scan(self, partition: int, offsets: range) -> StateMessage | None:
        scan = Scan(offsets, self.validate)
        window = None
        log = self._logs[partition]
        while not scan.is_done:
            if scan.next.stop != window:
                self.windows, window = self.windows + 1, scan.next.stop
            first = bisect_left(log, scan.next.start, key=attrgetter("offset"))
            end = bisect_left(log, scan.next.stop, key=attrgetter("offset"))
            run = log[first : min(first + self._run_length, end)]
            stop = run[-1].offset + 1 if first + len(run) < end else scan.next.stop
            scan.feed(stop, reversed(run))
        return scan.found

    def validate(self, record: Record) -> StateMessage | None:
        self.validated.append((record.partition, record.offset))
        try:
            return StateMessage(
                **parse_message(record.value),
                partition=record.partition,
                offset=record.offset,
                timestamp=record.timestamp,
            )
        except InvalidMessage:
            return None


VALUES = st.sampled_from(
    [b'{"state":1}', b'{"state":null}', b"not json", b"{}", None, b"\x00\x00\x00\x00\x00\x00"]
)


@st.composite
def logs(draw) -> tuple[list[Record], dict[int, range]]:
    records, ranges = [], {}
    for partition in range(draw(st.integers(1, 4))):
        offset = beginning = draw(st.integers(0, 5))
        for value in draw(st.lists(VALUES, max_size=30)):
            offset += draw(st.sampled_from([0, 0, 0, 1, 7, 300]))  # compacted away, or markers
            records.append(Record(partition, offset, draw(st.integers(-1, 50)), value))
            offset += 1
        ranges[partition] = range(beginning, offset + draw(st.integers(0, 40)))
    return records, ranges


def slowly(records: list[Record]) -> dict[int, int]:
    """The offset of each partition's last valid message."""
    tails = {}
    for record in records:
        try:
            parse_message(record.value)
        except InvalidMessage:
            continue
        tails[record.partition] = record.offset
    return tails


@given(logs(), st.integers(1, 7))
def test_finds_what_reading_from_the_beginning_finds(log, run_length):
    records, ranges = log
    recorded = RecordedLog(records, run_length)
    tails = recorded.locate(ranges)
    assert {partition: tail.offset for partition, tail in tails.items()} == slowly(records)
    assert all(tail.partition == partition for partition, tail in tails.items())


@given(logs())
def test_validates_no_message_twice(log):
    records, ranges = log
    recorded = RecordedLog(records)
    recorded.locate(ranges)
    assert len(recorded.validated) == len(set(recorded.validated))


@given(logs(), st.integers(0, 400))
def test_stays_within_the_given_ranges(log, cut):
    records, ranges = log
    later = {p: range(min(r.start + cut, r.stop), r.stop) for p, r in ranges.items()}
    recorded = RecordedLog(records)
    tails = recorded.locate(later)
    expected = slowly([r for r in records if r.offset in later[r.partition]])
    assert {partition: tail.offset for partition, tail in tails.items()} == expected


@settings(max_examples=settings().max_examples // 5)
@given(st.integers(0, 50_000))
def test_reads_little_more_than_the_invalid_messages_at_the_end(invalid):
    records = [Record(0, offset, 0, b'{"state":1}') for offset in range(60_000 - invalid)]
    records += [Record(0, offset, 0, None) for offset in range(60_000 - invalid, 60_000)]
    recorded = RecordedLog(records, run_length=500)
    assert recorded.locate({0: range(60_000)})[0].offset == 59_999 - invalid
    assert len(recorded.validated) <= invalid + 500
    assert recorded.windows <= invalid / ENOUGH + 10


def test_a_gap_of_a_billion_offsets_costs_few_reads():
    log = [Record(0, 5, 0, b'{"state":1}'), Record(0, 10**9, 0, None)]
    recorded = RecordedLog(log)
    assert recorded.locate({0: range(10**9 + 1)})[0].offset == 5
    assert GROWTH ** (recorded.windows - 2) < 10**9


def test_a_valid_newest_message_costs_one_read_of_one_offset():
    records = [Record(p, o, 0, b'{"state":1}') for p, o in itertools.product(range(3), range(100))]
    recorded = RecordedLog(records)
    recorded.locate(dict.fromkeys(range(3), range(100)))
    assert recorded.windows == 3  # one for each partition
    assert sorted(recorded.validated) == [(0, 99), (1, 99), (2, 99)]


def test_one_that_gives_way_to_a_later_one_of_its_window_counts_as_passed_over():
    valid = [Record(0, offset, 0, b'{"state":1}') for offset in range(4)]
    scan = Scan(range(4), RecordedLog([]).validate, width=4)
    scan.feed(2, reversed(valid[:2]))
    scan.feed(4, reversed(valid[2:]))
    assert scan.is_done
    assert scan.found.offset == 3
    assert scan.validated == 1
