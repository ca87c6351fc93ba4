"""What is served at a start: what is on the disk, until the log is read."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app.following import state_cache
from app.following.consumer import Consumer
from app.following.history import History
from app.following.state_file import FORMAT, Kept, StateFile
from app.loaders import InvalidMessage, Loader, RetryableError, StateMessage, load_json
from app.loaders.protocol import is_cached
from app.settings import Settings
from app.state import Snapshot, State
from app.topic_log import Record, TopicLogError
from tests.support.leaders import Log, leader
from tests.support.waiting import eventually

SETTINGS = Settings(topic="t", initial='"initial"')
AGO = 60.0


def kept(state: Any, offset: int = 5, timestamp: int = 50, topic_id: str | None = "id") -> Kept:
    value = json.dumps({"state": state}).encode()
    return Kept("t", topic_id, Record(0, offset, timestamp, value))


INITIAL = Kept("t", "id", None)


@pytest.fixture
def file(tmp_path) -> StateFile:
    return StateFile(tmp_path, SETTINGS)


@dataclass
class Brokers:
    """Whether there is a log to be had: none while `away` says why; while `silent` one waits."""

    away: str = "no broker"
    silent: bool = False
    log: Log | None = None

    def open(
        self,
        settings: Settings,
        group_id: str,
        *,
        before_wait: Callable[[], None],
        on_group_refused: Callable[[], None],
        while_unanswered: Callable[[], None],
    ) -> Log:
        while self.silent:
            while_unanswered()
            time.sleep(0.01)
        if self.away or self.log is None:
            raise TopicLogError(self.away)
        self.log.before_wait = before_wait
        return self.log

    def come(self, log: Log) -> None:
        self.log, self.away, self.silent = log, "", False

    def go(self) -> None:
        assert self.log
        self.away, self.log.is_gone = "no broker", True


@pytest.fixture
def brokers(monkeypatch) -> Brokers:
    brokers = Brokers()
    monkeypatch.setattr("app.following.session.TopicLog", brokers.open)
    return brokers


class Served:
    """What a consumer serves, and what it loads for that."""

    def __init__(self, file: StateFile | None, load: Loader) -> None:
        self.loads: list[Any] = []
        self.state = State()
        self.history = History(10)
        self._load = load
        self.consumer = Consumer(SETTINGS, self.state, self.history, loader=self, state_file=file)

    def __call__(self, message: StateMessage) -> Any:
        self.loads.append(message.state)
        return self._load(message)

    def is_cached(self, message: StateMessage) -> bool:
        return is_cached(self._load, message)

    @property
    def snapshot(self) -> Snapshot | None:
        return self.state.view().snapshot

    @property
    def json(self) -> str | None:
        return self.snapshot and self.snapshot.json

    @property
    def status(self) -> Any:
        return self.consumer.status


@contextlib.contextmanager
def serving(file: StateFile | None, load: Loader = load_json) -> Iterator[Served]:
    served = Served(file, load)
    served.consumer.start()
    try:
        yield served
    finally:
        served.consumer.stop(20)


def put(file: StateFile, state: Kept, ago: float = AGO) -> None:
    file.keep(state, time.time() - ago, is_new=True)


def test_without_brokers_it_serves_what_is_on_the_disk_as_stale_as_it_is(file, brokers):
    put(file, kept("kept"))
    with serving(file) as served:
        eventually(served.consumer.initial_load_done.is_set)
        view = served.state.view()
        assert view.snapshot
        assert view.snapshot.json == '"kept"'
        assert view.snapshot.version == "0-5-50-id"
        assert view.positions == {}
        assert view.reason == "no broker"
        assert served.status.cached
        assert served.status.stale_seconds == pytest.approx(AGO, abs=20)
        assert served.status.updates == 1
        assert served.status.update_delay is None
        assert [state.json for state in served.history.served] == ['"kept"']


def test_is_stale_from_the_first_moment_on(file, brokers):
    put(file, kept("kept"), ago=0)
    with serving(file) as served:
        eventually(lambda: served.json)
        assert served.status.stale_seconds > 0


def test_serves_it_also_while_no_broker_says_a_word(file, brokers):
    put(file, kept("kept"))
    brokers.silent = True
    with serving(file) as served:
        eventually(lambda: served.json == '"kept"')
        assert served.status.failures == 0
        brokers.come(Log("id", {0: leader(0, "of the log")}))
        eventually(lambda: served.json == '"of the log"')


def test_a_broker_that_answers_is_asked_first(file, brokers):
    put(file, kept("kept"))
    log = Log("id", {0: leader(0, "of the log")}, silent=frozenset({0}))
    brokers.come(log)
    with serving(file) as served:
        eventually(lambda: log.asked > 50)  # for longer than a silent one is waited for
        assert served.json is None
        log.silent = frozenset()
        eventually(lambda: served.json == '"of the log"')
    assert served.loads == ["of the log"]


@pytest.mark.parametrize(
    ("states", "topic_id", "expected"),
    [
        ([1, 2], "id", "2"),
        ([], "id", '"initial"'),
        (["anew"], "another", '"anew"'),
        ([], "another", '"initial"'),
    ],
    ids=["an older message", "no message", "another topic", "another topic without messages"],
)
def test_what_the_log_says_takes_its_place(file, brokers, states, topic_id, expected):
    put(file, kept("kept", offset=9))
    with serving(file) as served:
        eventually(lambda: served.json == '"kept"')
        brokers.come(Log(topic_id, {0: leader(0, *states)}))
        eventually(lambda: served.json == expected)
        assert not served.status.cached
        assert served.state.view().positions == {0: len(states)}
        eventually(lambda: served.status.stale_seconds == 0)
        assert served.status.update_delay is None
    found, _ = file.read()
    assert found.topic_id == topic_id
    assert found.value == (json.dumps({"state": states[-1]}).encode() if states else b"")


def test_the_same_message_is_not_loaded_again_and_keeps_its_version(file, brokers):
    put(file, kept("kept", offset=0, timestamp=0))
    with serving(file) as served:
        eventually(lambda: served.json)
        before = served.snapshot
        brokers.come(Log("id", {0: leader(0, "kept")}))
        eventually(lambda: served.state.view().positions == {0: 1})
        assert served.snapshot is before
        assert not served.status.cached
        assert served.state.view().reason == ""
        assert served.status.updates == 1
    assert served.loads == ["kept"]
    assert file.read()[1] == pytest.approx(time.time(), abs=20)


def test_stays_until_every_partition_is_located(file, brokers):
    put(file, kept("kept"))
    with serving(file) as served:
        eventually(lambda: served.json == '"kept"')
        log = Log("id", {0: leader(0, "newer", timestamp=90), 1: leader(1)}, frozenset({1}))
        brokers.come(log)
        eventually(lambda: served.status.is_connected)
        eventually(lambda: log.asked > 20)
        assert served.json == '"kept"'
        assert served.status.cached
        assert served.status.stale_seconds == pytest.approx(AGO, abs=20)
        log.silent = frozenset()
        eventually(lambda: served.json == '"newer"')


def test_stays_while_what_the_log_has_does_not_load(file, brokers):
    def load(message: StateMessage) -> Any:
        if message.state == "later":
            raise RetryableError("gone", "not now")
        return message.state

    put(file, kept("kept"))
    with serving(file, load) as served:
        eventually(lambda: served.json == '"kept"')
        brokers.come(Log("id", {0: leader(0, "later")}))
        eventually(lambda: served.status.pending)
        eventually(lambda: served.status.partitions)
        assert served.json == '"kept"'
        assert served.status.cached
        assert served.status.stale_seconds == pytest.approx(AGO, abs=20)


def test_gives_way_to_what_loads_at_once_while_the_newest_takes_its_time(file, brokers):
    is_there = threading.Event()

    class Slow:
        def is_cached(self, message: StateMessage) -> bool:
            return bool(message.state != "newest")

        def __call__(self, message: StateMessage) -> Any:
            if message.state == "newest":
                is_there.wait(20)
            return message.state

    put(file, kept("kept", offset=9))
    with serving(file, Slow()) as served:
        eventually(lambda: served.json == '"kept"')
        brokers.come(Log("id", {0: leader(0, "before", "newest")}))
        eventually(lambda: served.json == '"before"')
        is_there.set()
        eventually(lambda: served.json == '"newest"')


def test_the_initial_value_is_served_too(file, brokers):
    put(file, INITIAL)
    with serving(file) as served:
        eventually(lambda: served.json == '"initial"')
        brokers.come(Log("id", {0: leader(0)}))
        eventually(lambda: served.state.view().positions == {0: 0})
        assert served.status.updates == 1


def test_a_refused_message_is_told_and_not_served(file, brokers, caplog):
    def refuse(message: StateMessage) -> Any:
        raise InvalidMessage("range", "too large")

    put(file, kept("kept"))
    with serving(file, refuse) as served:
        eventually(lambda: served.status.failures > 2)
        assert served.json is None
        assert served.state.view().reason == (
            "no broker; the message on the disk is refused: range: too large"
        )
    assert served.loads == ["kept"]
    assert "Skipped an invalid message: range: too large" in caplog.text


def test_one_that_does_not_load_now_is_tried_again_after_pauses(file, brokers):
    is_there = threading.Event()

    def load(message: StateMessage) -> Any:
        if not is_there.is_set():
            raise RetryableError("gone", "not now")
        return message.state

    put(file, kept("kept"))
    with serving(file, load) as served:
        eventually(served.consumer.initial_load_done.is_set)
        (pending,) = served.status.pending
        assert pending.reason == "gone"
        assert served.state.view().reason == (
            "no broker; the message on the disk does not load now: gone: not now"
        )
        is_there.set()
        eventually(lambda: served.json == '"kept"')
        assert not served.status.pending


def test_what_takes_time_to_load_is_not_begun_while_a_broker_may_answer(file, brokers):
    class Slow:
        asked = 0

        def is_cached(self, message: StateMessage) -> bool:
            self.asked += 1
            return False

        def __call__(self, message: StateMessage) -> Any:
            return message.state

    put(file, kept("kept"))
    brokers.silent = True
    slow = Slow()
    with serving(file, slow) as served:
        eventually(lambda: slow.asked > 2)
        assert served.json is None
        brokers.silent = False
        eventually(lambda: served.json == '"kept"')


def write_what_nobody_wrote(path: Path) -> None:
    """With a checksum that is right."""
    line = b'{"topic": "t"}\n'
    path.write_bytes(f"{FORMAT} {hashlib.sha256(line).hexdigest()}\n".encode() + line)


@pytest.mark.parametrize(
    "spoil", [Path.mkdir, lambda path: path.write_bytes(b"damaged"), write_what_nobody_wrote]
)
def test_what_is_of_no_use_is_a_warning_and_nothing_else(file, brokers, caplog, monkeypatch, spoil):
    spoil(file.path)
    explained = []
    monkeypatch.setattr(State, "explain", lambda _, reason: explained.append(reason))
    with serving(file) as served:
        eventually(lambda: served.status.failures > 3)
        assert served.json is None
        began, *why = explained
        assert began.startswith("connecting to ")
        assert all("no broker; the state on the disk is of no use" in reason for reason in why)
        assert len([message for message in caplog.messages if str(file.path) in message]) == 1
        brokers.come(Log("id", {0: leader(0, "of the log")}))
        eventually(lambda: served.json == '"of the log"')


def test_what_another_worker_writes_at_its_end_is_served_too(file, brokers):
    def load(message: StateMessage) -> Any:
        if message.state == "before":
            put(file, kept("last"), AGO - 0.5)
        return message.state

    put(file, kept("before", offset=4), AGO)
    with serving(file, load) as served:
        eventually(lambda: served.json == '"last"')
    assert served.loads == ["before", "last"]
    assert file.read()[0] == kept("last")


def test_nothing_on_the_disk_takes_the_place_of_what_the_log_said(file, brokers):
    brokers.come(Log("id", {0: leader(0, "of the log")}))
    with serving(file) as served:
        eventually(lambda: served.json == '"of the log"')
        eventually(file.path.exists)
        brokers.go()
        put(file, kept("kept"), ago=-1000)
        failures = served.status.failures
        eventually(lambda: served.status.failures > failures + 2)
        assert served.json == '"of the log"'


# ---- what is put there


def test_what_is_served_is_kept_with_its_bytes(file, brokers):
    brokers.come(Log("id", {0: leader(0, 1), 1: leader(1, "newest", timestamp=7)}))
    with serving(file) as served:
        eventually(lambda: served.json == '"newest"')
        eventually(file.path.exists)
        found, as_of = eventually(file.read)
        assert found == Kept("t", "id", Record(1, 0, 7, b'{"state": "newest"}'))
        assert as_of == pytest.approx(time.time(), abs=20)
        # said to be current as long as it is
        eventually(lambda: file.read()[1] > as_of)


def test_that_there_is_no_message_is_kept(file, brokers):
    brokers.come(Log("id", {0: leader(0)}))
    with serving(file) as served:
        eventually(lambda: served.json)
        eventually(file.path.exists)
    assert file.read()[0] == INITIAL


def test_a_stop_leaves_the_last_one_there(file, brokers, monkeypatch):
    monkeypatch.setattr(state_cache, "PAUSE_SECONDS", 3600.0)
    partition = leader(0, 1)
    brokers.come(Log("id", {0: partition}))
    with serving(file) as served:
        eventually(file.path.exists)
        partition.append([b'{"state": 2}'])
        eventually(lambda: served.json == "2")
    assert file.read()[0].value == b'{"state": 2}'


def test_no_bytes_are_held_where_nothing_is_kept(brokers):
    values = []

    def load(message: StateMessage) -> Any:
        values.append(message.value)
        return message.state

    brokers.come(Log("id", {0: leader(0, 1)}))
    with serving(None, load) as served:
        eventually(lambda: served.json)
    assert values == [None]
