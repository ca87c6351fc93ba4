from __future__ import annotations

import dataclasses
import logging
import threading
import time
from pathlib import Path

import pytest

from app.following import state_cache
from app.following.state_cache import LONGEST_PAUSE_SECONDS, PAUSE_SECONDS, StateCache
from app.following.state_file import Kept, StateFile
from app.settings import Settings
from app.topic_log import Record
from tests.support.waiting import eventually


def numbered(number: int) -> Kept:
    return Kept("t", "id", Record(0, number, number, b'{"state":1}'))


class Clock:
    """The one of `as_of`, which began now."""

    def __init__(self) -> None:
        self.began = time.time()

    def __call__(self) -> float:
        return time.time() - self.began

    def epoch(self, as_of: float) -> float:
        return self.began + as_of


class File(StateFile):
    """Notes what is written."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, Settings(topic="t"))
        self.written: list[Kept] = []

    def _write(self, kept: Kept, as_of: float) -> None:
        super()._write(kept, as_of)
        self.written.append(kept)


@pytest.fixture
def file(tmp_path) -> File:
    return File(tmp_path / "folder")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cache(file, clock) -> StateCache:
    return StateCache(file, clock)


def test_keeps_the_newest_and_then_pauses(cache, file, clock):
    assert cache.step() == 0
    cache.keep(numbered(1), as_of=-3)
    cache.keep(numbered(2), as_of=-2)
    assert cache.step() == PAUSE_SECONDS
    kept, as_of = file.read()
    assert kept == numbered(2)
    assert as_of == pytest.approx(clock.epoch(-2), abs=0.1)
    assert file.written == [numbered(2)]


def test_says_until_when_it_is_current_and_does_not_write_it_again(cache, file, clock):
    cache.keep(numbered(1), as_of=-20)
    cache.step()
    for as_of in (-15, -10):
        cache.confirm(as_of)
        assert cache.step() == 0
        assert file.read()[1] == pytest.approx(clock.epoch(as_of), abs=0.1)
    assert file.written == [numbered(1)]


def test_what_was_found_there_is_not_written(cache, file):
    file.keep(numbered(2), time.time(), is_new=True)
    cache.keep(numbered(1), as_of=0, is_new=False)
    assert cache.step() == 0
    assert file.read()[0] == numbered(2)


def test_tries_again_where_another_process_knew_something_else_later(cache, file, clock):
    file.keep(numbered(2), time.time(), is_new=True)
    cache.keep(numbered(1), as_of=-20)
    assert cache.step() == PAUSE_SECONDS
    assert file.read()[0] == numbered(2)
    cache.confirm(clock())
    cache.step()
    assert file.read()[0] == numbered(1)


def test_what_cannot_be_written_is_told_and_tried_again_after_pauses(cache, file, caplog):
    caplog.set_level(logging.INFO)
    folder = file.path.parent
    folder.write_bytes(b"in the way")
    cache.keep(numbered(1), as_of=0)
    pauses = [cache.step() for _ in range(20)]
    assert cache.error == f"{file.path}: Not a directory"
    assert [PAUSE_SECONDS <= pause <= LONGEST_PAUSE_SECONDS for pause in pauses] == [True] * 20
    assert pauses[-1] > LONGEST_PAUSE_SECONDS / 4
    assert caplog.messages == [f"The state cannot be kept: {file.path}: Not a directory"]
    folder.unlink()
    assert cache.step() == PAUSE_SECONDS
    assert cache.error is None
    assert file.read()[0] == numbered(1)
    assert caplog.messages[1:] == [f"The state is kept again: {file.path}"]


def test_the_thread_writes_the_first_at_once_and_at_a_stop_the_last(cache, file, monkeypatch):
    monkeypatch.setattr(state_cache, "PAUSE_SECONDS", 3600.0)
    cache.start()
    cache.keep(numbered(1), as_of=0)
    eventually(lambda: file.written)
    cache.keep(numbered(2), as_of=0)
    threading.Event().wait(0.2)  # that nothing comes of it shows only in time
    cache.keep(numbered(3), as_of=0)
    cache.stop()
    cache.join(20)
    assert file.written == [numbered(1), numbered(3)]


def test_the_thread_writes_what_comes_in_the_middle_of_a_quiet_time_at_once(
    cache, file, monkeypatch
):
    monkeypatch.setattr(state_cache, "PAUSE_SECONDS", 3600.0)
    cache.start()
    cache.keep(numbered(1), as_of=0, is_new=False)
    cache.keep(numbered(2), as_of=0)
    eventually(lambda: file.written[-1:] == [numbered(2)])
    cache.stop()
    cache.join(20)


def test_a_disk_that_does_not_answer_holds_nobody_up(cache, file, monkeypatch):
    is_back = threading.Event()
    monkeypatch.setattr(file, "_write", lambda *_: is_back.wait(20))
    cache.start()
    for number in range(1000):
        cache.keep(numbered(number), as_of=0)
        cache.confirm(as_of=number)
    cache.stop()
    began = time.monotonic()
    cache.join(0.1)
    assert time.monotonic() - began < 10
    is_back.set()
    cache.join(20)


def test_can_be_stopped_before_it_was_started(cache):
    cache.keep(dataclasses.replace(numbered(1), record=None), as_of=0)
    cache.stop()
    cache.join(0)
