"""Which message is served, against the obvious slow rule."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.following.latest import CannotReadBack, LatestMessages
from app.following.locate import Scan
from app.following.retries import LONGEST_PAUSE_SECONDS, MOST_PENDING, MOST_TRIES
from app.message import StateMessage
from app.message_errors import InvalidMessage, RetryableError
from app.state import Snapshot

BROKEN, REFUSED, LATER, GOOD = "broken", "refused", "later", "good"


@dataclass(frozen=True)
class Record:
    partition: int
    offset: int
    timestamp: int
    kind: str


@dataclass
class Follower:
    """Follows a log in memory as the consumer does."""

    records: list[Record] = field(default_factory=list)
    time: float = 0.0
    served: Snapshot | None = None
    positions: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    loads: list[tuple[int, int]] = field(default_factory=list)
    mended: set[str] = field(default_factory=set)
    delayed: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.read_back_later = self.read_back
        self.latest = LatestMessages(
            self.validate,
            lambda message: self.load(message),
            self.is_cached,
            now=lambda: self.time,
        )

    def is_cached(self, message: StateMessage) -> bool:
        return message.offset not in self.delayed

    def load(self, message: StateMessage) -> Snapshot:
        self.loads.append((message.partition, message.offset))
        if message.state == REFUSED:
            raise InvalidMessage("refused", "never")
        if message.state == LATER and LATER not in self.mended:
            raise RetryableError("gone", "not now")
        return Snapshot(
            message.state, message.timestamp, message.partition, message.offset, message.topic_id
        )

    def validate(self, record: Record) -> StateMessage | None:
        if record.kind == BROKEN:
            return None
        return StateMessage(
            record.kind,
            partition=record.partition,
            offset=record.offset,
            timestamp=record.timestamp,
        )

    def read_back(self, partition, offsets, accept):
        scan = Scan(offsets, accept)
        while not scan.is_done:
            run = [r for r in self.records if r.partition == partition and r.offset in scan.next]
            scan.feed(scan.next.stop, reversed(run))
        return scan.found

    def follow(self, *arrived: Record) -> str | None:
        """The log ends after those that have `arrived`; gives where the served one is."""
        self.records += arrived
        ranges = {}
        for partition in {record.partition for record in arrived}:
            end = max(r.offset for r in self.records if r.partition == partition) + 1
            ranges[partition] = range(self.positions[partition], end)
            self.positions[partition] = end
        for partition, offsets in ranges.items():
            message = self.read_back(partition, offsets, self.validate)
            if message:
                self.latest.append(message, since=offsets.start)
        self.served = self.latest.newest(self.served, self.read_back_later) or self.served
        return self.served and f"{self.served.partition}:{self.served.offset}"


def slowly(records: list[Record]) -> str | None:
    """The newest of the partitions' last valid messages by timestamp, ties to the higher partition;
    if it does not load, of those and the one before it."""
    valid = defaultdict(list)
    for record in records:
        if record.kind != BROKEN:
            valid[record.partition].append(record)
    while any(valid.values()):
        newest = max(
            (left[-1] for left in valid.values() if left), key=lambda r: (r.timestamp, r.partition)
        )
        if newest.kind == GOOD:
            return f"{newest.partition}:{newest.offset}"
        valid[newest.partition].pop()
    return None


@st.composite
def logs(draw, kinds=(BROKEN, REFUSED, GOOD)) -> list[Record]:
    offsets: dict[int, int] = defaultdict(int)
    records = []
    for partition, kind, timestamp in draw(
        st.lists(st.tuples(st.integers(0, 2), st.sampled_from(kinds), st.integers(0, 9)))
    ):
        records.append(Record(partition, offsets[partition], timestamp, kind))
        offsets[partition] += 1
    return records


def in_steps(records: list[Record], data: st.DataObject) -> Iterator[list[Record]]:
    """As they may arrive: some at once, then some more."""
    while records:
        count = data.draw(st.integers(1, len(records)))
        yield records[:count]
        records = records[count:]


@given(logs(), st.data())
def test_who_follows_serves_what_who_starts_serves(records, data):
    follower = Follower()
    for arrived in in_steps(records, data):
        follower.follow(*arrived)
    expected = slowly(records)
    assert Follower().follow(*records) == expected
    assert follower.follow() == expected
    late = Follower(delayed=data.draw(st.sets(st.integers(0, 9))))
    late.follow(*records)
    assert late.follow() == expected


@given(logs())
def test_loads_no_message_twice_but_one_that_was_not_the_newest_for_a_while(records):
    follower = Follower()
    follower.follow(*records)
    for _ in range(3):
        follower.follow()
    assert len(follower.loads) == len(set(follower.loads))


@given(logs(kinds=(BROKEN, REFUSED, LATER, GOOD)), st.data())
def test_serves_in_the_end_what_was_to_be_tried_again(records, data):
    follower = Follower()
    for arrived in in_steps(records, data):
        follower.follow(*arrived)
        follower.time += data.draw(st.floats(0, 100))
    follower.mended.add(LATER)
    for _ in range(len(records) + 1):
        follower.time += LONGEST_PAUSE_SECONDS
        follower.follow()
    good = [
        Record(r.partition, r.offset, r.timestamp, r.kind.replace(LATER, GOOD)) for r in records
    ]
    assert follower.follow() == slowly(good)
    assert not follower.latest.pending


def test_only_the_newest_of_many_partitions_is_loaded():
    follower = Follower()
    follower.follow(*(Record(partition, 0, partition, GOOD) for partition in range(100)))
    assert follower.loads == [(99, 0)]


def test_what_is_served_stays_while_the_newest_does_not_load():
    follower = Follower()
    assert follower.follow(Record(0, 0, 0, GOOD)) == "0:0"
    assert follower.follow(Record(0, 1, 1, LATER)) == "0:0"
    assert [str(pending) for pending in follower.latest.pending] == [
        "partition 0, offset 1, gone: not now"
    ]


def test_tries_again_after_pauses_that_grow_to_a_bound():
    follower = Follower()
    follower.follow(Record(0, 0, 0, LATER))
    pauses = []
    for _ in range(20):
        (pending,) = follower.latest.pending
        pauses.append(pending.next_try - follower.time)
        follower.time = pending.next_try - 0.001
        before = len(follower.loads)
        follower.follow()
        assert len(follower.loads) == before
        follower.time = pending.next_try
        follower.follow()
        assert len(follower.loads) == before + 1
    assert pauses[0] < 1
    assert max(pauses) <= LONGEST_PAUSE_SECONDS
    assert min(pauses[-5:]) >= LONGEST_PAUSE_SECONDS / 2


def test_a_newer_message_takes_the_place_of_one_that_is_to_be_tried_again():
    follower = Follower()
    follower.follow(Record(0, 0, 0, LATER))
    assert follower.follow(Record(0, 1, 1, GOOD)) == "0:1"
    assert not follower.latest.pending
    follower.mended.add(LATER)
    follower.time += LONGEST_PAUSE_SECONDS
    assert follower.follow() == "0:1"


def test_a_start_serves_the_one_before_until_the_newest_loads():
    follower = Follower()
    log = [Record(0, 0, 0, GOOD), Record(0, 1, 1, REFUSED), Record(0, 2, 2, LATER)]
    assert follower.follow(*log) == "0:0"
    follower.mended.add(LATER)
    follower.time += LONGEST_PAUSE_SECONDS
    assert follower.follow() == "0:2"


def test_a_start_serves_the_newest_that_loads_without_delay_until_a_newer_one_is_loaded():
    follower = Follower(delayed={3, 4})
    log = [Record(0, offset, offset, GOOD) for offset in range(5)]
    assert follower.follow(*log) == "0:2"
    assert follower.loads == [(0, 2)]
    assert [pending.offset for pending in follower.latest.pending] == [4, 3]
    assert follower.follow() == "0:4"
    assert follower.loads == [(0, 2), (0, 4)]
    assert not follower.latest.pending


def test_a_start_that_has_nothing_without_delay_loads_the_newest_and_no_other():
    follower = Follower(delayed=set(range(1000)))
    assert follower.follow(*(Record(0, n, n, GOOD) for n in range(1000))) == "0:999"
    assert follower.loads == [(0, 999)]


def test_what_is_served_is_not_left_for_what_loads_without_delay():
    follower = Follower(delayed={2})
    assert follower.follow(Record(0, 0, 0, GOOD)) == "0:0"
    assert follower.follow(Record(0, 1, 1, GOOD), Record(0, 2, 2, GOOD)) == "0:2"
    assert follower.loads == [(0, 0), (0, 2)]


def test_a_start_tries_a_few_at_a_time_of_a_log_whose_storage_is_away_and_not_all_of_them():
    follower = Follower()
    log = [Record(0, offset, offset, LATER) for offset in range(1000)]
    assert follower.follow(*log) is None
    assert len(follower.loads) <= 2 * MOST_TRIES
    tried = len(follower.loads)
    for _ in range(MOST_PENDING):
        assert follower.follow() is None
        assert len(follower.loads) <= tried + 2 * MOST_TRIES
        tried = len(follower.loads)
    assert len(follower.latest.pending) == len(set(follower.loads)) == MOST_PENDING


def test_a_start_comes_to_the_newest_that_loads_however_many_do_not_after_it():
    follower = Follower()
    running = Follower()
    log = [Record(0, 0, 0, GOOD), *(Record(0, n, n, LATER) for n in range(1, 50))]
    for record in log:
        assert running.follow(record) == "0:0"
    follower.follow(*log)
    assert any(follower.follow() == "0:0" for _ in range(50))


def test_what_takes_long_to_fail_keeps_nothing_before_it_from_being_tried():
    follower = Follower()
    log = [Record(0, 0, 0, GOOD), *(Record(0, n, n, LATER) for n in range(1, 20))]
    load = follower.load

    def load_slowly(message: StateMessage) -> Snapshot:
        follower.time += 2 * LONGEST_PAUSE_SECONDS
        return load(message)

    follower.load = load_slowly
    follower.follow(*log)
    assert any(follower.follow() == "0:0" for _ in range(20))
    for _ in range(100):
        follower.follow()
    for pending in follower.latest.pending:
        assert pending.tries > 2


def test_what_loads_is_served_though_something_newer_elsewhere_is_to_be_tried_again():
    log = [Record(0, 0, 100, GOOD), Record(1, 0, 200, LATER), Record(0, 1, 150, GOOD)]
    running = Follower()
    assert [running.follow(record) for record in log] == ["0:0", "0:0", "0:1"]
    assert Follower().follow(*log) == "0:1"
    running.mended.add(LATER)
    running.time += LONGEST_PAUSE_SECONDS
    assert running.follow() == "1:0"


@given(logs(kinds=(BROKEN, REFUSED, LATER, GOOD)), st.data())
def test_who_follows_serves_what_who_starts_serves_while_some_are_to_be_tried_again(records, data):
    running, starting = Follower(), Follower()
    for arrived in in_steps(records, data):
        running.follow(*arrived)
        running.time += data.draw(st.floats(0, 100))
    starting.follow(*records)
    for _ in range(len(records)):
        running.follow()
        starting.follow()
    assert running.follow() == starting.follow() == slowly(records)


def delete(follower: Follower, partition: int, before: int) -> None:
    follower.records = [
        r for r in follower.records if r.partition != partition or r.offset >= before
    ]
    follower.latest.trim_before(partition, before)


def test_a_deleted_state_stays_until_something_newer_than_its_deletion_comes():
    follower = Follower()
    follower.follow(Record(1, 0, 10, GOOD))
    assert follower.follow(Record(0, 0, 99, GOOD)) == "0:0"
    follower.latest.trim_before(0, 0)
    delete(follower, 0, 1)
    assert follower.follow() == "0:0"
    assert follower.follow(Record(1, 1, 20, GOOD)) == "0:0"
    follower.latest.trim_before(0, 1)  # as the next fetch tells
    assert follower.follow() == "1:1" == slowly(follower.records)


def test_a_deleted_state_stays_though_another_partition_is_located_after_it():
    follower = Follower()
    follower.latest.locate(0, StateMessage(GOOD, partition=0, timestamp=99), range(1))
    follower.latest.locate(1, StateMessage(GOOD, partition=1, timestamp=10), range(1))
    follower.latest.trim_before(0, 1)
    assert follower.follow() == "0:0"


def test_a_deleted_state_stays_while_there_is_no_other():
    follower = Follower()
    assert follower.follow(Record(0, 0, 99, GOOD)) == "0:0"
    delete(follower, 0, 1)
    assert follower.follow(Record(1, 0, 10, BROKEN)) == "0:0"
    assert follower.follow(Record(1, 1, 20, REFUSED)) == "0:0"
    assert follower.follow(Record(1, 2, 30, GOOD)) == "0:0"
    follower.latest.trim_before(0, 1)
    assert follower.follow() == "1:2"


def test_of_what_is_to_be_tried_again_the_one_before_has_no_say_when_it_is_deleted():
    follower = Follower()
    assert follower.follow(Record(0, 0, 50, GOOD)) == "0:0"
    assert follower.follow(Record(0, 1, 60, LATER)) == "0:0"
    assert follower.follow(Record(1, 0, 40, GOOD)) == "0:0"
    follower.latest.trim_before(0, 0)
    delete(follower, 0, 1)
    assert follower.follow() == "0:0"
    assert follower.follow(Record(1, 1, 45, GOOD)) == "0:0"
    follower.latest.trim_before(0, 1)
    assert follower.follow() == "1:1"
    assert [pending.offset for pending in follower.latest.pending] == [1]


def test_a_deleted_state_stays_also_where_its_partition_has_to_be_located_again():
    """For what would be read next was deleted too; elsewhere that may not be known yet."""
    follower = Follower()
    follower.follow(Record(1, 0, 10, GOOD))
    assert follower.follow(Record(0, 0, 99, GOOD)) == "0:0"
    follower.latest.locate(0, None, range(5, 6))
    assert follower.follow() == "0:0"
    assert follower.follow(Record(1, 1, 20, GOOD)) == "0:0"
    follower.latest.trim_before(0, 5)
    assert follower.follow() == "1:1"


def test_a_partition_whose_log_is_another_one_has_the_tail_of_that_one():
    follower = Follower()
    follower.follow(Record(0, 0, 10, GOOD))
    assert follower.follow(Record(1, 5, 20, GOOD)) == "1:5"
    truncated = StateMessage(GOOD, partition=1, offset=3, timestamp=15)
    follower.latest.locate(1, truncated, range(5))
    assert follower.follow() == "1:3"
    follower.latest.locate(1, None, range(5))
    assert follower.follow() == "0:0"


def test_a_partition_that_is_located_again_and_has_not_changed_is_not_loaded_again():
    follower = Follower()
    assert follower.follow(Record(0, 0, 10, GOOD), Record(0, 1, 11, REFUSED)) == "0:0"
    loads = list(follower.loads)
    again = StateMessage(REFUSED, partition=0, offset=1, timestamp=11)
    follower.latest.locate(0, again, range(2))
    assert follower.follow() == "0:0"
    assert follower.loads == loads


def test_what_cannot_be_read_back_now_is_read_back_later():
    follower = Follower()

    def cannot(partition, offsets, accept):
        raise CannotReadBack("its leader is away")

    follower.read_back_later = cannot
    log = [Record(0, 0, 0, GOOD), Record(0, 1, 1, REFUSED)]
    follower.records += log
    follower.latest.append(follower.validate(log[1]), since=0)
    assert follower.follow() is None
    follower.read_back_later = follower.read_back
    assert follower.follow() == "0:0"


@pytest.mark.parametrize("error", [KeyError("gone"), SystemExit()])
def test_an_error_while_reading_loses_nothing(error):
    follower = Follower()
    follower.follow(Record(0, 0, 0, GOOD))

    def fail(partition, offsets, accept):
        raise error

    follower.read_back_later = fail
    with pytest.raises(type(error)):
        follower.follow(Record(0, 1, 1, GOOD), Record(0, 2, 2, REFUSED))
    follower.read_back_later = follower.read_back
    assert follower.follow() == "0:1"


def test_a_message_ranks_no_lower_for_one_before_it_that_is_refused():
    """Of a window that takes several fetches the older messages are read first."""
    follower = Follower()

    def in_several_fetches(partition, offsets, accept):
        scan = Scan(offsets, accept, width=len(offsets))
        while not scan.is_done:
            run = [r for r in follower.records if r.partition == partition]
            at = scan.next.start
            scan.feed(at + 1, [record for record in run if record.offset == at])
        return scan.found

    log = [Record(0, 0, 45, REFUSED), Record(0, 1, 50, GOOD), Record(0, 2, 60, REFUSED)]
    other = [Record(1, 0, 40, GOOD), Record(1, 1, 47, GOOD)]
    follower.records += log
    follower.latest.append(follower.validate(log[2]), since=0)
    follower.latest.append(follower.validate(other[0]), since=0)
    served = follower.latest.newest(None, in_several_fetches)
    assert served.partition == 0
    follower.latest.append(follower.validate(other[1]), since=1)
    assert follower.latest.newest(served, in_several_fetches) == served


def test_says_that_a_partition_could_not_be_read_back():
    follower = Follower()

    def cannot(partition, offsets, accept):
        raise CannotReadBack("its leader is away")

    refused = Record(0, 1, 1, REFUSED)
    follower.latest.append(follower.validate(refused), since=0)
    assert follower.latest.newest(None, cannot) is None
    assert follower.latest.unread_because == "its leader is away"
    assert follower.latest.newest(None, lambda *_: None) is None
    assert follower.latest.unread_because is None
