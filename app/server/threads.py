"""The threads of a worker, of which one has the poller.

The one that has it waits for clients and answers them. Before it would block it gives the poller
to another and goes on with its request alone. So a thread costs only what waits, and a plain
request is never handed over (the pattern is Leader/Followers, of POSA 2).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

# a thread that has had nothing to do for so long ends
IDLE_SECONDS = 10.0


class PollingThread:
    """One of the threads; `Threads` owns it.

    Attributes:
        polls: whether it has the poller.
        answering: what it answers while it has the poller; None while it waits for clients.
        answered: how many it has begun to answer.
    """

    def __init__(self) -> None:
        self.polls = False
        self.answering: Any = None
        self.answered = 0
        self.wake = threading.Semaphore(0)


class Threads:
    """Hands the poller from thread to thread, and starts threads as they are needed.

    `_lock` guards who has the poller, who waits for it, and how many there are.

    Attributes:
        polling: the thread that has the poller; None while all that there may be are busy.
    """

    def __init__(self, most: int, poll: Callable[[PollingThread], None]) -> None:
        """
        Args:
            most: how many there may be.
            poll: waits for clients and answers them, for as long as the thread `polls`.
        """
        self._most = most
        self._poll = poll
        self._lock = threading.Lock()
        self._spares: list[PollingThread] = []
        self._count = 0
        self._is_over = False
        self.polling: PollingThread | None = None

    def start(self) -> None:
        """Have a first thread poll."""
        with self._lock:
            begin = self._pass_on()
        begin()

    def stop(self) -> None:
        """Have nobody poll any more. The threads end, each with what it answers."""
        with self._lock:
            self._is_over = True
            spares, self._spares = self._spares, []
            if self.polling:
                self.polling.polls = False
        for spare in spares:
            spare.wake.release()

    def begin(self, thread: PollingThread, answering: Any) -> None:
        """Note what the thread that polls answers now: it may be passed over from here on."""
        thread.answered += 1
        thread.answering = answering

    def end(self, thread: PollingThread) -> None:
        """Note that the thread has answered; it polls again if nobody else does."""
        with self._lock:
            thread.answering = None
            self._take_poller(thread)

    def busy(self) -> tuple[PollingThread, int] | None:
        """Give the thread that should poll and answers, and how many it has begun to answer."""
        thread = self.polling
        return (thread, thread.answered) if thread and thread.answering else None

    def pass_poller_on(
        self,
        thread: PollingThread,
        before: Callable[[Any], None],
        answered: int | None = None,
    ) -> None:
        """Have another thread poll, if this one would and answers.

        Args:
            before: called with what it answers, before another polls.
            answered: nothing happens if it has begun another answer since it had so many.
        """
        with self._lock:
            is_another = answered is not None and answered != thread.answered
            if not thread.polls or not thread.answering or is_another:
                return
            before(thread.answering)
            thread.polls = False
            begin = self._pass_on()
        begin()

    def _pass_on(self) -> Callable[[], None]:
        """Give the poller to another thread; what it gives has that thread begin."""
        self.polling = None
        if self._spares:
            spare = self._spares.pop()
            self._take_poller(spare)
            return spare.wake.release
        if self._count < self._most:
            self._count += 1
            new = PollingThread()
            self._take_poller(new)
            return threading.Thread(target=self._run, args=[new], name="http", daemon=True).start
        return lambda: None  # the next to end its answer takes it

    def _take_poller(self, thread: PollingThread) -> None:
        if self.polling is None and not self._is_over:
            self.polling = thread
            thread.polls = True

    def _run(self, thread: PollingThread) -> None:
        while self._await_poller(thread):
            self._poll(thread)

    def _await_poller(self, thread: PollingThread) -> bool:
        """Wait for the poller; False if this thread is to end, for it is not needed."""
        with self._lock:
            self._take_poller(thread)
            if thread.polls or self._is_over:
                return thread.polls
            self._spares.append(thread)
        if not thread.wake.acquire(timeout=IDLE_SECONDS):
            with self._lock:
                if thread in self._spares:
                    self._spares.remove(thread)
                    self._count -= 1
                    return False
            thread.wake.acquire(timeout=IDLE_SECONDS)  # it is being woken
        return thread.polls
