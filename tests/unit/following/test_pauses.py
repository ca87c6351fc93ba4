from __future__ import annotations

import pytest

from app.following.conflation import Conflation

PAUSE = 0.05


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Reader:
    """Looks, and pauses as it is told."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.conflation = Conflation(PAUSE, self.clock)
        self.paused = self.looks = 0

    def look(self, passed: int) -> None:
        pause = self.conflation.pause_after(passed)
        self.looks += 1
        self.paused += pause > 0
        self.clock.now += pause


@pytest.fixture
def reader() -> Reader:
    return Reader()


@pytest.mark.parametrize("a_second", [1, 30, 50])
def test_messages_that_come_one_by_one_wait_for_nothing(reader, a_second):
    for _ in range(1000):
        reader.clock.now += 1 / a_second
        reader.look(passed=1)
    assert reader.paused == 0


def test_two_that_come_at_once_wait_for_nothing(reader):
    for _ in range(2):
        reader.look(passed=1)
    assert reader.paused == 0


@pytest.mark.parametrize("a_second", [1_000, 50_000])
def test_a_flood_is_looked_at_as_often_as_the_pauses_allow(reader, a_second):
    began, passed = reader.clock.now, 0
    while reader.clock.now < began + 10:
        reader.clock.now += 0.001  # what a look takes
        came = int((reader.clock.now - began) * a_second) - passed
        passed += came
        reader.look(came)
    assert reader.looks <= 10 / PAUSE + 50


def test_soon_after_a_flood_a_message_waits_for_nothing(reader):
    reader.look(passed=1_000_000)
    assert reader.paused == 1
    reader.clock.now += 1.1
    reader.look(passed=1)
    assert reader.paused == 1


def test_a_quiet_night_saves_no_more_than_a_second():
    reader = Reader()
    reader.clock.now += 86_400
    for _ in range(100):
        reader.look(passed=1)
    assert reader.paused > 10
