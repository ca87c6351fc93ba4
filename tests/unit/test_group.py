"""What a broken or silent client of the group does to the one that reads the log: nothing."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable

from kafka import TopicPartition
from kafka.errors import KafkaTimeoutError

from app.topic_log.group import Group, close_quietly
from tests.waiting import eventually

FIRST = TopicPartition("numbers", 0)


class Client:
    """Stands for a client that fails as none does at will with a real broker."""

    def __init__(
        self, on_answer: Callable[[], object] = lambda: None, refusals: Iterable[Exception] = ()
    ) -> None:
        self.committed: dict[TopicPartition, int] = {}
        self.is_closed = False
        self._on_answer = on_answer
        self._refusals = iter(refusals)
        self._answers: list[Callable[[], None]] = []
        self._client = self._coordinator = self

    def commit_async(self, offsets, callback) -> None:
        def answer() -> None:
            refusal = next(self._refusals, None)
            if refusal is None:
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


def group_of(*clients: Client) -> Group:
    opening = iter(clients)
    return Group("group", lambda group_id: next(opening), lambda: None)


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
