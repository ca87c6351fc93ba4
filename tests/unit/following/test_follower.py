"""Reading back, while answers of all partitions come: no broker, no thread."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from app.following import follower as module
from app.following.follower import Follower
from app.following.latest import CannotReadBack, LatestMessages
from app.message import StateMessage
from app.state import Snapshot
from app.topic_log import Answer, Ask, AskEnds, PartitionError, Record
from tests.support.leaders import Leader

VALID = b"valid"


@dataclass
class Log:
    """What is asked of a silent leader is answered with the next question, unless it was forgotten."""

    leaders: Mapping[int, Leader]
    silent: set[int] = field(default_factory=set)
    failing: set[int] = field(default_factory=set)
    changed: set[int] = field(default_factory=set)
    fetches: int = 0
    questions: int = 0
    _awaited: dict[int, Ask] = field(default_factory=dict)

    def partitions(self) -> frozenset[int]:
        return frozenset(self.leaders)

    def new_leaders(self) -> set[int]:
        changed, self.changed = self.changed, set()
        return changed

    def want_metadata(self) -> None: ...

    def tells_epochs(self, partition: int) -> bool:
        return True

    def forget(self, partition: int) -> None:
        self._awaited.pop(partition, None)

    def ask(self, asks: Mapping[int, Ask], timeout: float) -> list[Answer]:
        self.questions += 1
        self._awaited = {**asks, **self._awaited}
        answered = self._awaited.keys() - self.silent
        return [self._answer(p, self._awaited.pop(p)) for p in sorted(answered)]

    def _answer(self, partition: int, ask: Ask) -> Answer:
        if partition in self.failing:
            return PartitionError(partition, "KAFKA_STORAGE_ERROR", "its disk has failed")
        return self.leaders[partition].answer(ask)


def validate(record: Record) -> StateMessage | None:
    if record.value != VALID:
        return None
    return StateMessage(None, partition=record.partition, offset=record.offset)


def located(log: Log) -> tuple[Follower, LatestMessages]:
    follower = Follower(log, validate, lambda *_: None, lambda _: None, lambda _: None)
    latest = LatestMessages(validate, lambda message: Snapshot("1"), lambda message: True)
    while follower.positions.keys() != log.leaders.keys():
        follower.step(latest)
    return follower, latest


def log_of(*partitions: int, **options) -> Log:
    leaders = {partition: Leader(partition) for partition in partitions}
    for leader in leaders.values():
        for _ in range(3):
            leader.append([VALID])
    return Log(leaders, **options)


def offset_of(latest: LatestMessages, partition: int) -> int:
    newest = latest._of(partition).newest
    assert newest
    return newest.message.offset


def test_finds_the_last_one_within_the_offsets():
    follower, _ = located(log_of(0))
    assert follower.read_back(0, range(2), validate).offset == 1
    assert follower.read_back(0, range(0), validate) is None


def test_an_answer_that_comes_after_it_gave_up_is_not_taken_for_one_of_following(monkeypatch):
    monkeypatch.setattr(module, "READ_BACK_SECONDS", 0.01)
    log = log_of(0)
    follower, latest = located(log)
    log.silent = {0}
    with pytest.raises(CannotReadBack, match="no answer"):
        follower.read_back(0, range(2), validate)
    log.silent = set()
    log.leaders[0].append([VALID])
    read = []
    for _ in range(3):
        follower.step(latest)
        read.append(offset_of(latest, 0))
    assert read == [3, 3, 3]
    assert follower.positions == {0: 4}


def test_what_others_answer_meanwhile_is_taken_later():
    log = log_of(0, 1, silent={1})
    log.silent = set()
    follower, latest = located(log)
    log.silent = {1}
    follower.step(latest)  # the other is asked
    log.leaders[1].append([VALID])
    log.silent = set()
    follower.read_back(0, range(2), validate)
    follower.step(latest)
    assert follower.positions[1] == 4
    assert offset_of(latest, 1) == 3


def test_what_a_leader_answered_meanwhile_says_nothing_of_the_next_one():
    log = log_of(0, 1)
    follower, latest = located(log)
    log.silent = {1}
    follower.step(latest)
    log.leaders[1].append([VALID])
    log.silent = set()
    follower.read_back(0, range(2), validate)
    log.changed = {1}
    log.leaders[1].asked.clear()
    follower.step(latest)
    assert isinstance(log.leaders[1].asked[0], AskEnds)


def test_one_in_trouble_is_given_up_at_once():
    log = log_of(0, failing={0})
    log.failing = set()
    follower, latest = located(log)
    log.failing, log.questions = {0}, 0
    with pytest.raises(CannotReadBack, match="KAFKA_STORAGE_ERROR"):
        follower.read_back(0, range(2), validate)
    assert log.questions == 1
    follower.step(latest)
    assert follower.progress[0].error
    log.questions = 0
    with pytest.raises(CannotReadBack, match="KAFKA_STORAGE_ERROR"):
        follower.read_back(0, range(2), validate)
    assert log.questions == 0


def test_where_the_log_was_truncated_it_does_not_go_beyond_the_offsets():
    log = log_of(0)
    follower, _ = located(log)
    log.leaders[0].start = 2
    log.leaders[0].asked.clear()
    with pytest.raises(CannotReadBack, match="OFFSET_OUT_OF_RANGE"):
        follower.read_back(0, range(2), validate)
    assert not any(isinstance(ask, AskEnds) for ask in log.leaders[0].asked)
