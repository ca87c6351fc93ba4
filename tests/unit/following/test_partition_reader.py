"""One partition, read as its leader hands it out, against the obvious slow reading."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.following.partition_reader import Advance, PartitionReader
from app.message import StateMessage
from app.topic_log import PartitionError
from app.topic_log.batches import Record
from tests.support.leaders import Leader

VALID, INVALID = b"valid", b"invalid"


@dataclass
class Follower:
    """What becomes of the answers."""

    leader: Leader
    time: float = 0.0
    tail: int | None = None
    validated: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.reader = PartitionReader(self.validate, lambda offset, why: None)

    def validate(self, record: Record) -> StateMessage | None:
        self.validated.append(record.offset)
        return StateMessage("", offset=record.offset) if record.value == VALID else None

    def step(self, most_batches: int = 1) -> bool:
        """Whether something was read through."""
        ask = self.reader.next_ask(self.time)
        if ask is None:
            self.time += 1
            return True
        advance = self.reader.take(self.leader.answer(ask, most_batches), self.time)
        if advance:
            self.take(advance)
        return bool(advance) or self.reader.position != self.leader.end

    def take(self, advance: Advance) -> None:
        if advance.is_whole_log:
            self.tail = None
        if advance.tail:
            self.tail = advance.tail.offset

    def catch_up(self, most_batches: int = 1) -> None:
        for _ in range(10 * len(self.leader.batches) + 50):
            if not self.step(most_batches):
                return
        raise AssertionError(f"it does not come to an end: {self.leader.asked[-5:]}")


def last_valid_of(leader: Leader) -> int | None:
    records = [record for batch in leader.batches for record in batch.records]
    return max((record.offset for record in records if record.value == VALID), default=None)


kinds = st.lists(st.sampled_from([VALID, INVALID, INVALID, None, None]), min_size=1, max_size=5)
batches = st.lists(st.tuples(kinds, st.sampled_from([0, 0, 0, 1, 30])), max_size=12)


@given(batches, st.lists(batches, max_size=4), st.integers(1, 4), st.data())
def test_comes_to_the_last_valid_message_however_the_log_grows(before, grows, most_batches, data):
    leader = Leader()
    for batch in before:
        leader.append(*batch)
    follower = Follower(leader)
    for more in grows:
        for batch in more:
            leader.append(*batch)
            leader.others_take_the_room = data.draw(st.integers(0, 2))
            for _ in range(data.draw(st.integers(0, 3))):
                follower.step(most_batches)
        follower.catch_up(most_batches)
        assert follower.tail == last_valid_of(leader)
        assert follower.reader.position == leader.end
    assert len(follower.validated) == len(set(follower.validated))


def located(*appended: list[bytes | None]) -> Follower:
    leader = Leader()
    for kinds_ in appended:
        leader.append(kinds_)
    follower = Follower(leader)
    follower.catch_up()
    leader.asked.clear()
    return follower


def test_what_a_batch_holds_behind_the_first_record_is_not_passed_over():
    """A transaction of three messages and its marker, which is fetched right after another."""
    follower = located([VALID])
    follower.leader.append([VALID, VALID, VALID])
    follower.leader.append([None])
    follower.catch_up()
    assert follower.tail == 3


def test_an_empty_batch_at_the_beginning_is_passed_at_once():
    follower = located([None, None, None])
    assert follower.reader.position == 3
    follower.leader.append([VALID])
    follower.catch_up()
    assert follower.tail == 3


def test_offsets_before_the_end_that_hold_no_batch_are_passed_at_once():
    leader = Leader(end=9)
    follower = Follower(leader)
    follower.catch_up()
    assert follower.reader.position == 9
    assert len(leader.asked) < 6


def test_who_gets_nothing_beside_others_asks_to_come_first_and_for_more():
    follower = located([INVALID])
    follower.leader.append([VALID])
    follower.leader.others_take_the_room = 3
    follower.catch_up()
    assert follower.tail == 1
    first, second, *_ = follower.leader.asked
    assert (first.first, second.first) == (False, True)
    assert second.max_bytes > first.max_bytes


def test_a_failure_is_followed_by_a_pause_that_grows_and_by_none_after_an_answer():
    follower = located([VALID])
    reader, pauses = follower.reader, []
    for _ in range(8):
        before = follower.time
        assert reader.next_ask(follower.time)
        reader.take(PartitionError(0, "KAFKA_STORAGE_ERROR", "its disk"), follower.time)
        assert str(reader.error) == "KAFKA_STORAGE_ERROR: its disk"
        while reader.next_ask(follower.time) is None:
            follower.time += 0.01
        pauses.append(follower.time - before)
    assert pauses[0] < 0.3
    assert 0.9 < pauses[-1] < 2.1
    follower.leader.append([VALID])
    follower.catch_up()
    assert reader.error is None
    assert follower.tail == 1
    reader.take(PartitionError(0, "KAFKA_STORAGE_ERROR", "its disk"), follower.time)
    assert reader.next_ask(follower.time + 0.3)


def test_what_was_deleted_before_it_was_read_is_not_waited_for():
    follower = located([VALID])
    for _ in range(5):
        follower.leader.append([VALID])
    del follower.leader.batches[:5]
    follower.leader.start = 5
    follower.catch_up()
    assert follower.tail == 5


def test_a_log_that_is_shorter_than_it_was_is_located_again():
    follower = located([VALID])
    leader = follower.leader
    for _ in range(5):
        leader.append([INVALID])
    follower.step()  # which tells where the end is
    leader.batches[1:], leader.end = [], 1
    leader.append([VALID])
    follower.catch_up()
    assert follower.tail == 1
    assert follower.reader.position == 2


def test_a_log_that_was_truncated_and_has_grown_to_the_same_end_is_told_by_its_leader():
    follower = located([VALID], [VALID])
    leader = follower.leader
    leader.batches[1:], leader.end = [], 1
    leader.append([INVALID])
    follower.catch_up()
    assert follower.tail == 1  # which nothing in the answers shows
    follower.reader.on_new_leader()
    follower.catch_up()
    assert follower.tail == 0


@pytest.mark.parametrize("invalid", [0, 5, 200])
def test_a_backlog_is_read_backwards_from_its_end(invalid):
    follower = located([VALID])
    for _ in range(100):
        follower.leader.append([VALID] * 10)
    for _ in range(invalid):
        follower.leader.append([INVALID])
    follower.validated.clear()
    follower.catch_up(most_batches=3)
    assert follower.tail == 1000
    assert len(follower.validated) <= invalid + 20


def test_its_end_is_never_before_what_was_read():
    """A broker notes where the log ends before it reads what it hands out."""
    follower = located([VALID])
    ask = follower.reader.next_ask(0.0)
    ended = follower.leader.end
    follower.leader.append([VALID, INVALID])
    fetched = follower.leader.answer(ask)
    follower.reader.take(dataclasses.replace(fetched, end=ended, high_watermark=ended), 0.0)
    assert (follower.reader.position, follower.reader.end) == (3, 3)


def test_its_end_is_confirmed_by_each_answer_that_has_nothing_new():
    follower = located([VALID])
    for time in (10.0, 20.0):
        follower.time = time
        follower.step()
        assert follower.reader.confirmed_at == time


def test_its_end_is_confirmed_as_of_when_it_was_told_and_not_of_when_all_was_read():
    follower = located([VALID])
    for _ in range(3):
        follower.leader.append([VALID])
    before = follower.reader.confirmed_at
    follower.time = 10.0
    while follower.reader.confirmed_at == before:
        assert follower.step()
        follower.time += 10
    assert follower.time > 20
    assert follower.reader.confirmed_at == 10.0


def test_its_end_is_not_confirmed_by_an_error():
    follower = located([VALID])
    follower.time = 10.0
    follower.step()
    assert follower.reader.next_ask(20.0)
    follower.reader.take(PartitionError(0, "NOT_LEADER_OR_FOLLOWER", "it moves"), 20.0)
    assert follower.reader.confirmed_at == 10.0
