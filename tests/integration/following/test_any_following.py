"""Histories nobody thought of, and the one who follows them against a slow reading from the first.

Each history has a topic of its own and a seed, which a failed run tells.
"""

from __future__ import annotations

import time

import pytest

from dev import apache_kafka
from tests.support.histories.schedule import Schedule
from tests.support.histories.writers import Writers
from tests.support.processes import Program, following
from tests.support.waiting import eventually

pytestmark = pytest.mark.own_kafka

LOOKS = 10
START_SECONDS = 20.0
# the broker's start, the last history and its end come on top of what is asked for
SECONDS_ON_TOP = 120
# a few of those that find nothing, and for each step: until it is over there is a look every
# 50 ms, which may have to read back
FETCHES_A_SECOND = 10
FETCHES_A_STEP = 40
# however short a while there is between them
FETCHES_BETWEEN_TWO_LOOKS = 2


@pytest.fixture
def kafka():
    with apache_kafka.running() as kafka:
        yield kafka


@pytest.fixture
def bootstrap_servers(kafka):
    return kafka.address


class Follower:
    """The program that follows a schedule's topic."""

    def __init__(self, program: Program, schedule: Schedule) -> None:
        self._program = program
        self._schedule = schedule
        self._fetches = self._at = self._steps = 0

    def assert_is_current(self, within: float = 0) -> None:
        accepted, ends = self._schedule.look()
        self.wanted = f"one of {accepted}, and the ends {ends}"

        def is_current() -> bool:
            answer, status = self._program.get(), self._program.get("/status")
            if answer is None or status is None:
                return False
            state = answer.json().get("state")
            assert state not in self._schedule.uncommitted, f"{state} is not committed"
            partitions = status.json()["partitions"]
            positions = {int(partition): at["position"] for partition, at in partitions.items()}
            # what is open cannot be read yet
            lagging = any(at["lag"] for at in partitions.values()) and not self._schedule.is_open
            in_trouble = any(at["error"] for at in partitions.values())
            return state in accepted and positions == ends and not lagging and not in_trouble

        eventually(is_current, within or self._schedule.patience)
        self._assert_few_fetches(self._program.get("/status").json())

    def _assert_few_fetches(self, status: dict) -> None:
        before = self._fetches, self._at, self._steps
        now = status["fetches"], time.monotonic(), len(self._schedule.steps)
        fetches, seconds, steps = (new - old for new, old in zip(now, before, strict=True))
        # those of the start are told by the steps before it
        allowed = FETCHES_A_SECOND * seconds + FETCHES_A_STEP * steps + FETCHES_BETWEEN_TWO_LOOKS
        assert fetches <= allowed
        self._fetches, self._at, self._steps = now

    def story(self) -> str:
        answers = [self._program.get(path) for path in ("/state", "/status")]
        shown = [answer.text if answer is not None else "no answer" for answer in answers]
        return "\n".join([*self._schedule.steps, f"wanted: {self.wanted}", *shown])


@pytest.mark.drawn_at_random("following", seconds_on_top=SECONDS_ON_TOP)
def test_serves_what_reading_from_the_beginning_finds_after_each_step(
    kafka, serve, seconds, seed, tmp_path
):
    deadline = time.monotonic() + seconds
    writers = Writers(kafka.address)
    for number in range(seed, seed + 10**6):
        if time.monotonic() > deadline:
            break
        print(f"--following-seed={number}", flush=True)
        schedule = Schedule(kafka, writers, number)
        if number % 2:
            schedule.go_on()  # there is something already
        environ = {"KAFKA_METADATA_MAX_AGE_MS": "1000"}
        with following(schedule.topic, tmp_path / "output", **environ) as program:
            follower = Follower(program, schedule)
            try:
                follower.assert_is_current(within=START_SECONDS)
                for _ in range(LOOKS):
                    schedule.go_on()
                    follower.assert_is_current()
                schedule.finish()
                follower.assert_is_current()
                new = serve(schedule.topic)
                assert new.comes_to(program.get().json()["state"])
                new.consumer.stop(10)
                schedule.close()
            except BaseException:
                print(follower.story())
                raise
