from __future__ import annotations

import contextlib
import itertools
import logging
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

from app.backoff import backoff_seconds
from app.following.consumer import Consumer
from app.following.history import History
from app.loaders import InvalidMessage, Loader, StateMessage, load_json
from app.logs import Throttle
from app.settings import Settings
from app.state import State
from app.topic_log import Refused, TopicLogError
from app.topic_log.handshake import ANSWER_SECONDS
from tests.support.leaders import Log, leader
from tests.support.waiting import eventually


def test_pauses_grow_to_a_bound():
    pauses = [backoff_seconds(failures, 2.0, chance=lambda: 1.0) for failures in range(2000)]
    assert pauses == sorted(pauses)
    assert pauses[0] < 1
    assert pauses[-1] == 2.0


def test_pauses_of_many_instances_differ_by_up_to_a_half():
    drawn = iter([0.0, 0.5, 1.0])
    assert [backoff_seconds(9, 2.0, chance=lambda: next(drawn)) for _ in range(3)] == [
        1.0,
        1.5,
        2.0,
    ]


def test_says_why_it_does_not_follow_though_it_said_something_else_a_moment_ago(
    monkeypatch, caplog
):
    caplog.set_level(logging.WARNING)
    reasons = itertools.chain(["first", "second"], itertools.repeat("third"))

    def cannot_open(*args: object, **options: object) -> None:
        raise TopicLogError(next(reasons))

    monkeypatch.setattr("app.following.session.TopicLog", cannot_open)
    consumer = Consumer(Settings(topic="t"), State(), History(length=1))
    consumer._event_log._failure = Throttle(logging.getLogger("app").warning, limit=1, period=0.5)
    consumer.start()
    try:
        eventually(lambda: any("third" in line for line in caplog.messages))
    finally:
        consumer.stop(10)
    assert caplog.messages[0] == "Not following t: first"


@contextlib.contextmanager
def following(monkeypatch, *logs: Log, loader: Loader = load_json) -> Iterator[State]:
    """One after the other."""
    opening = iter(logs)

    def open_next(settings: Settings, group_id: str, *, before_wait, **others: object) -> Log:
        log = next(opening)
        log.before_wait = before_wait
        return log

    monkeypatch.setattr("app.following.session.TopicLog", open_next)
    state = State()
    consumer = Consumer(Settings(topic="t"), state, History(length=1), loader=loader)
    consumer.start()
    try:
        yield state
    finally:
        consumer.stop(10)


def test_of_a_topic_made_anew_it_serves_nothing_before_it_knows_all_and_nothing_of_the_one_before(
    monkeypatch,
):
    before = Log("before", {0: leader(0), 1: leader(1, 1, 2, 3, timestamp=20)})
    anew = Log(
        "anew", {0: leader(0, "new", timestamp=10), 1: leader(1, start=9)}, frozenset({0, 1})
    )
    with following(monkeypatch, before, anew) as state:
        eventually(lambda: state.view().positions == {0: 0, 1: 3})
        before.is_gone = True
        eventually(lambda: state.view().positions == {0: 0, 1: 0})
        anew.silent = frozenset({1})
        eventually(lambda: state.view().positions == {0: 1, 1: 0})
        assert state.read().json == "3"
        anew.silent = frozenset()
        eventually(lambda: state.view().positions == {0: 1, 1: 9})
        assert state.read().json == '"new"'


def test_serves_no_initial_state_while_what_was_before_a_refused_message_cannot_be_read(
    monkeypatch,
):
    def load(message: StateMessage) -> Any:
        if message.state == "refused":
            raise InvalidMessage("refused", "never")
        return message.state

    log = Log("id", {0: leader(0, "good", "refused")}, failing_before=1)
    with following(monkeypatch, log, loader=load) as state:
        eventually(lambda: "its disk has failed" in state.view().reason)
        assert state.view().snapshot is None
        log.failing_before = 0
        eventually(lambda: state.view().snapshot)
        assert state.read().json == '"good"'


def test_a_stop_does_not_wait_for_a_broker_that_says_nothing():
    with socket.create_server(("127.0.0.1", 0)) as mute:
        servers = f"localhost:{mute.getsockname()[1]}"
        consumer = Consumer(
            Settings(topic="t", bootstrap_servers=servers), State(), History(length=1)
        )
        consumer.start()
        with mute.accept()[0]:
            began = time.monotonic()
            consumer.stop(20)
            assert time.monotonic() - began < ANSWER_SECONDS
    assert consumer.status.failures == 0


def test_what_its_status_says_has_been_reported(monkeypatch):
    def cannot_open(*args: object, **options: object) -> None:
        raise TopicLogError("no broker")

    monkeypatch.setattr("app.following.session.TopicLog", cannot_open)
    reported = []
    consumer = Consumer(
        Settings(topic="t"),
        State(),
        History(length=1),
        [lambda status: reported.append((status.failures, consumer.status.failures))],
    )
    consumer.start()
    eventually(lambda: consumer.status.failures)
    consumer.stop(10)
    assert (1, 0) in reported


def test_a_file_that_changes_while_what_it_held_is_refused_is_tried_soon(monkeypatch, tmp_path):
    file = tmp_path / "password"
    file.write_text("before")
    tried = []

    def refuse(*args: object, **options: object) -> None:
        tried.append(file.read_text())
        if tried == ["before"]:
            file.write_text("after it")
        raise Refused("the password is wrong")

    monkeypatch.setattr("app.following.session.TopicLog", refuse)
    given = {
        "KAFKA_TOPIC": "t",
        "KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
        "KAFKA_SASL_MECHANISM": "PLAIN",
        "KAFKA_SASL_USERNAME": "alice",
        "KAFKA_SASL_PASSWORD_FILE": str(file),
    }
    consumer = Consumer(Settings.from_environ(given), State(), History(length=1))
    consumer.start()
    try:
        eventually(lambda: tried == ["before", "after it"], within=10)
    finally:
        consumer.stop(10)


def test_a_signal_that_comes_while_it_starts_ends_it(monkeypatch):
    """gunicorn's handler of SIGTERM stops the consumer, wherever the main thread is."""
    consumer = Consumer(Settings(topic="t"), State(), History(length=1))
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        consumer.stop(timeout=0)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    consumer.start()
    monkeypatch.undo()
    eventually(lambda: not consumer.is_alive())
    assert consumer.status.failures == 0
