"""Who polls, and who answers."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable

import pytest

from app.server import threads as module
from app.server.threads import PollingThread, Threads
from tests.support.waiting import eventually

Job = Callable[[PollingThread], object]


class Office:
    """Stands for a poller: its jobs are what clients ask for.

    Attributes:
        by: which thread has done each.
        passed_on: what was being answered when the poller was passed on.
    """

    def __init__(self, most: int) -> None:
        self._jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self.by: list[int] = []
        self.passed_on: list[object] = []
        self.threads = Threads(most, self._poll)
        self.threads.start()

    def _poll(self, thread: PollingThread) -> None:
        while thread.polls:
            try:
                job = self._jobs.get(timeout=0.01)
            except queue.Empty:
                continue
            self.threads.begin(thread, job)
            self.by.append(threading.get_ident())
            job(thread)
            self.threads.end(thread)

    def close(self) -> None:
        self.threads.stop()

    def do(self, job: Job = lambda thread: None) -> None:
        self._jobs.put(job)

    def done(self, jobs: int) -> None:
        eventually(lambda: len(self.by) == jobs)

    def blocking(self, until: threading.Event) -> Job:
        def block(thread: PollingThread) -> None:
            self.threads.pass_poller_on(thread, self.passed_on.append)
            until.wait(10)

        return block


@pytest.fixture
def offices():
    """Open an office of at most so many threads."""
    with contextlib.ExitStack() as opened:
        yield lambda most=10: opened.enter_context(contextlib.closing(Office(most)))


@pytest.fixture
def office(offices) -> Office:
    return offices()


def test_what_does_not_block_is_answered_by_one_thread(office):
    for _ in range(100):
        office.do()
    office.done(100)
    assert len(set(office.by)) == 1


def test_another_thread_polls_while_one_blocks_and_the_first_is_a_spare_after_it(office):
    first, second = threading.Event(), threading.Event()
    office.do(block := office.blocking(first))
    office.do()
    office.done(2)
    assert office.passed_on == [block]
    first.set()
    eventually(lambda: len(office.threads._spares) == 1)
    office.do(office.blocking(second))
    office.do()
    office.done(4)
    second.set()
    a, b = office.by[0], office.by[1]
    assert office.by == [a, b, b, a]
    assert a != b


def test_who_has_been_busy_for_long_is_passed_over(office):
    until = threading.Event()
    office.do(lambda thread: until.wait(10))
    busy = eventually(office.threads.busy)
    office.do()
    office.threads.pass_poller_on(busy[0], office.passed_on.append, busy[1])
    office.done(2)
    until.set()
    assert len(set(office.by)) == 2


def test_who_was_busy_and_answers_something_else_by_now_is_not_passed_over(office):
    until = threading.Event()
    office.do()
    office.do(lambda thread: until.wait(10))
    office.done(2)
    thread, answered = eventually(office.threads.busy)
    office.threads.pass_poller_on(thread, office.passed_on.append, answered - 1)
    assert office.passed_on == []
    assert thread.polls
    until.set()


def test_nobody_is_passed_over_who_waits_for_clients(office):
    thread = office.threads.polling
    assert thread
    eventually(lambda: not office.threads.busy())
    office.threads.pass_poller_on(thread, office.passed_on.append)
    assert (office.passed_on, thread.polls) == ([], True)


@pytest.mark.parametrize("most", [1, 3])
def test_where_all_are_busy_the_first_to_end_polls_again(offices, most):
    office, until = offices(most), threading.Event()
    for _ in range(most):
        office.do(office.blocking(until))
    office.done(most)
    office.do()
    eventually(lambda: office.threads.polling is None)
    assert len(office.by) == most
    until.set()
    office.done(most + 1)
    assert len(set(office.by)) == most


def http_threads() -> int:
    return sum(thread.name == "http" for thread in threading.enumerate())


def test_a_thread_that_is_not_needed_ends(offices, monkeypatch):
    monkeypatch.setattr(module, "IDLE_SECONDS", 0.05)
    office, until = offices(), threading.Event()
    before = http_threads()
    for _ in range(5):
        office.do(office.blocking(until))
    office.done(5)
    assert http_threads() > before
    until.set()
    eventually(lambda: http_threads() <= before)
    office.do()
    office.done(6)


def test_the_poller_is_with_one_thread_however_often_it_is_passed_on(offices):
    polling, most_at_once = [], []
    office = offices(4)
    at_once = threading.Lock()

    def job(thread: PollingThread) -> None:
        with at_once:
            polling.append(thread.polls)
            most_at_once.append(sum(spare.polls for spare in office.threads._spares))
        office.threads.pass_poller_on(thread, office.passed_on.append)
        time.sleep(0.001)

    for _ in range(300):
        office.do(job)
    office.done(300)
    assert all(polling)
    assert not any(most_at_once)
    assert len(office.passed_on) == 300


def test_at_the_end_every_thread_ends(offices):
    before = http_threads()
    office, until = offices(), threading.Event()
    office.do(office.blocking(until))
    office.do()
    office.done(2)
    office.close()
    until.set()
    eventually(lambda: http_threads() <= before)
