"""What a broken or silent client of the group does to the one that reads the log: nothing."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Iterable
from typing import Any

from kafka import TopicPartition
from kafka.errors import KafkaTimeoutError

from app.settings.security import SecuritySettings
from app.topic_log.consumers import close_quietly
from app.topic_log.group import COMMIT_UNCHANGED_SECONDS, Group
from tests.support.waiting import eventually

FIRST = TopicPartition("numbers", 0)


class Client:
    """Stands for a client that fails as none does at will with a real broker."""

    def __init__(
        self, on_answer: Callable[[], object] = lambda: None, refusals: Iterable[Exception] = ()
    ) -> None:
        self.committed: dict[TopicPartition, int] = {}
        self.commits = 0
        self.is_closed = False
        self._on_answer = on_answer
        self._refusals = iter(refusals)
        self._answers: list[Callable[[], None]] = []
        self._client = self._coordinator = self

    def commit_async(self, offsets, callback) -> None:
        def answer() -> None:
            refusal = next(self._refusals, None)
            if refusal is None:
                self.commits += 1
                self.committed = {key: at.offset for key, at in offsets.items()}
            callback(offsets, refusal)

        self._answers.append(answer)

    def poll(self, timeout_ms: int) -> None:
        """Where kafka-python-ng sends and receives."""

    def _invoke_completed_offset_commit_callbacks(self) -> None:
        self._on_answer()
        while self._answers:
            self._answers.pop()()

    def close(self, autocommit: bool) -> None:
        self._on_answer()
        self.is_closed = True


class Clock:
    """Goes only when it is told to.

    Attributes:
        looks: how often somebody looked at it.
    """

    def __init__(self) -> None:
        self.time = 0.0
        self.looks = 0

    def __call__(self) -> float:
        self.looks += 1
        return self.time


def group_of(*clients: Client, **options: Any) -> Group:
    opening = iter(clients)
    return Group(
        "group", SecuritySettings(), lambda group_id: next(opening), lambda: None, **options
    )


def test_commits_a_position_once_and_again_only_so_that_the_broker_keeps_it(monkeypatch):
    monkeypatch.setattr("app.topic_log.group.COMMIT_SECONDS", 0.01)
    client, clock = Client(), Clock()
    group = group_of(client, now=clock)
    group.commit({FIRST: 3})
    eventually(lambda: client.committed == {FIRST: 3})
    looks = clock.looks
    eventually(lambda: clock.looks > looks + 10)
    assert client.commits == 1
    clock.time += COMMIT_UNCHANGED_SECONDS
    eventually(lambda: client.commits == 2)
    group.commit({FIRST: 4})
    eventually(lambda: client.committed == {FIRST: 4})
    group.close()


def test_another_client_commits_where_one_breaks():
    """As kafka-python-ng does: a connection that is closed has the file descriptor -1."""

    def break_down() -> None:
        raise ValueError("Invalid file descriptor: -1")

    good = Client()
    group = group_of(Client(break_down), Client(break_down), good)
    group.commit({FIRST: 3})
    eventually(lambda: good.committed == {FIRST: 3})
    group.close()
    assert good.is_closed


def test_another_client_commits_where_one_breaks_between_a_failure_and_the_next_try():
    answers = iter([None, ValueError("Invalid file descriptor: -1")])

    def break_down_later() -> None:
        error = next(answers, None)
        if error:
            raise error

    good = Client()
    group = group_of(Client(break_down_later, refusals=[KafkaTimeoutError()]), good)
    group.commit({FIRST: 3})
    eventually(lambda: good.committed == {FIRST: 3})
    group.close()


def test_nobody_waits_for_a_client_that_is_held_up():
    """As kafka-python-ng is by a broker that is silent in the middle of a SASL exchange."""
    go_on, held_up = threading.Event(), threading.Event()

    def hold_up() -> None:
        held_up.set()
        assert go_on.wait(10)

    client = Client(hold_up)
    group = group_of(client)
    group.commit({FIRST: 1})
    assert held_up.wait(10)
    group.commit({FIRST: 2})
    group.close()
    assert not client.is_closed
    go_on.set()
    eventually(lambda: client.is_closed)


def test_the_clients_log_is_as_before_when_two_threads_have_closed_theirs():
    log = logging.getLogger("kafka")
    level = log.level
    both_close = threading.Barrier(2)
    closing = [
        threading.Thread(target=close_quietly, args=[Client(both_close.wait)]) for _ in range(2)
    ]
    for thread in closing:
        thread.start()
    for thread in closing:
        thread.join(10)
    assert log.level == level


def test_tells_of_failures_that_last_and_not_of_a_coordinator_that_is_being_chosen(caplog):
    caplog.set_level(logging.WARNING)
    clock = Clock()

    def pass_a_second() -> None:
        clock.time += 1

    client = Client(pass_a_second, refusals=itertools.repeat(KafkaTimeoutError("no coordinator")))
    group = group_of(client, now=clock)
    group.commit({FIRST: 1})
    told = eventually(lambda: [(record.message, clock.time) for record in caplog.records])
    group.close()
    ((line, at),) = told
    assert line.startswith("The position cannot be committed under the group group")
    assert at >= 5
