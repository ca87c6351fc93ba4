"""gunicorn's worker of this service: the thread that polls answers, and no client holds it up."""

from __future__ import annotations

import contextlib
import math
import os
import queue
import resource
import socket
import sys
import time
from functools import partial
from typing import Any

from gunicorn.arbiter import Arbiter
from gunicorn.workers.base import Worker as BaseWorker

from app.logs import Throttle
from app.server.answers import answer, refuse
from app.server.clients import POLL_SECONDS, Clients
from app.server.connection import Connection
from app.server.logger import GunicornLogger
from app.server.shares import Shares, shared_memory
from app.server.threads import PollingThread, Threads
from app.service import KEY, Service

# how long a stopping worker keeps connections for requests that are under way already
LINGER_SECONDS = 2.0
# between two looks at whether the poller is left alone
STALL_SECONDS = 0.01
# looks without a request until the next request has to wake the one who looks
MOST_IDLE_LOOKS = 100

# beside the connections: the log, the listening sockets, those to the brokers
SPARE_FILES = 200


class _Lines:
    """Stands for a connection while lines are written."""

    is_polled = False


class Worker(BaseWorker):  # type: ignore[misc]
    """Polls and answers in one thread, which hands the poller over before it would block.

    The main thread answers nobody. It handles signals, tells the master that this worker lives,
    cuts off requests that take longer than `timeout`, and has another thread poll where one has
    been busy with a request for some 10 ms.

    A connection that waits for its client belongs to the thread that polls, one whose request is
    answered to the thread that answers it (docs/design.md).
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._alive = True
        self._is_serving = False
        # what comes in its place is not ready yet
        self._is_to_be_replaced = False
        # what is set by a signal's handler must have no lock that the main thread may hold
        self._wakes: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._is_asleep = False
        super().__init__(*args, **kwargs)
        self.worker_connections = self.cfg.worker_connections
        # for it alone, unless a hook gives it one that others see
        self.share = Shares(shared_memory()).of(self.age)
        self._seconds_to_answer = self.cfg.timeout or math.inf
        self._answering: set[Connection] = set()
        self._threads = Threads(self.cfg.threads, self._poll)
        self._busy_before: object = None
        self._idle_looks = 0
        self._log_cut_off = Throttle(self.log.warning)

    @property
    def alive(self) -> bool:
        """False as soon as it is to end: by a signal, --max-requests, --reload, a lost master."""
        return self._alive

    @alive.setter
    def alive(self, alive: bool) -> None:
        # a signal may come while another one is handled
        is_ending, self._alive = self._alive and not alive, alive
        self._wakes.put(None)
        if is_ending and (service := served_by(self)):
            service.drain()

    def handle_exit(self, sig: int, frame: object) -> None:
        """End, but serve on while a worker of the same reload is starting: gunicorn ends the old
        workers as soon as it has forked the new ones."""
        if self._is_serving and self.share.is_another_starting():
            self._is_to_be_replaced = True
            self._wakes.put(None)
            return
        if not self._is_serving:
            self.share.end()
        self.alive = False

    @property
    def nr_conns(self) -> int:
        return len(self._clients)

    def load_wsgi(self) -> None:
        # imported here: after --reload the class is another than the master's
        from app.settings import SettingsError

        try:
            super().load_wsgi()
        except SettingsError as error:
            self.log.critical("Error: %s", error)
            sys.exit(Arbiter.WORKER_BOOT_ERROR)  # of which the master ends, too

    def init_process(self) -> None:
        limit = _allow_open_files(self.worker_connections + SPARE_FILES) - SPARE_FILES
        if limit < self.worker_connections:
            self.worker_connections = max(limit, 1)
            self.log.warning(
                "At most %d connections: more files must not be open", self.worker_connections
            )
        for listener in self.sockets:
            with contextlib.suppress(AttributeError, OSError):  # only Linux has it, and only TCP
                # for answers that the kernel still holds when the connection is closed here; one
                # that is still being answered is cut off before
                seconds = self.cfg.timeout and self.cfg.timeout + 2 * POLL_SECONDS
                listener.setsockopt(
                    socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(seconds * 1000)
                )
        if isinstance(self.log, GunicornLogger):
            self.log.hold_access_lines()
        self._clients = Clients(
            self.cfg,
            self.log,
            self._serve,
            partial(refuse, self),
            self._write_lines_watched,
            self.share,
        )
        super().init_process()

    # ---- the main thread

    def run(self) -> None:
        for listener in self.sockets:
            self._clients.listen(listener, self._has_room)
        self._clients.register(self.PIPE[0], self._drain_pipe)
        self._threads.start()
        self._is_serving = True
        while self.alive and self._is_parent_alive():
            self.notify()
            self._cut_off_late_ones()
            self._watch(POLL_SECONDS)
        self._stop()

    def _has_room(self) -> bool:
        return bool(self.nr_conns < self.worker_connections)

    def _is_parent_alive(self) -> bool:
        if self.ppid != os.getppid():
            self.log.info("Parent changed, shutting down: %s", self)
            self.alive = False
        return self.alive

    def _watch(self, seconds: float) -> None:
        """Have another thread poll where the one that should is busy with a request."""
        until = time.monotonic() + seconds
        while self.alive and time.monotonic() < until:
            if self._is_to_be_replaced and not self.share.is_another_starting():
                self.alive = False
                return
            busy = self._threads.busy()
            if busy and busy == self._busy_before:
                self._pass_poller_on(*busy)
            self._busy_before = busy
            self._idle_looks = 0 if busy else self._idle_looks + 1
            if self._idle_looks < MOST_IDLE_LOOKS or self._is_to_be_replaced:
                time.sleep(STALL_SECONDS)
            else:
                self._sleep_until_busy(until - time.monotonic())

    def _sleep_until_busy(self, seconds: float) -> None:
        self._is_asleep = True
        if not self._threads.busy() and self.alive:
            with contextlib.suppress(queue.Empty):
                self._wakes.get(timeout=max(seconds, 0.0))
        self._is_asleep = False

    def _pass_poller_on(self, thread: PollingThread, answered: int | None = None) -> None:
        self._threads.pass_poller_on(thread, self._clients.unregister, answered)

    def _cut_off_late_ones(self) -> None:
        self._log_cut_off.flush()
        now = time.monotonic()
        for conn in [conn for conn in list(self._answering) if conn.deadline < now]:
            conn.deadline = math.inf
            self._log_cut_off("Cut off a request of %s after %d s", conn.client, self.cfg.timeout)
            conn.cut_off()

    def _stop(self) -> None:
        now = time.monotonic()
        deadline = now + self.cfg.graceful_timeout
        self._clients.stop_listening(min(now + LINGER_SECONDS, deadline))
        self._wake_poller()
        while (self._clients.is_listening or self.nr_conns) and time.monotonic() < deadline:
            self.notify()
            self._cut_off_late_ones()
            time.sleep(STALL_SECONDS)
        self._threads.stop()
        self._write_lines()

    def _write_lines(self) -> bool:
        return isinstance(self.log, GunicornLogger) and self.log.write_held()

    def _wake_poller(self) -> None:
        with contextlib.suppress(BlockingIOError):  # it is full, and so wakes it
            os.write(self.PIPE[1], b"!")

    def _drain_pipe(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self.PIPE[0], 4096)

    # ---- the thread that polls, and goes on alone where it has to wait

    def _poll(self, thread: PollingThread) -> None:
        """Wait for clients and answer them, for as long as the thread polls."""
        try:
            while thread.polls:
                self._clients.poll()
        except BaseException:
            self.log.exception("The worker cannot go on")
            self.alive = False
            raise

    def _serve(self, conn: Connection) -> None:
        thread = self._threads.polling
        assert thread
        conn.before_block = partial(self._pass_poller_on, thread)
        conn.deadline = time.monotonic() + self._seconds_to_answer
        self._answering.add(conn)
        self._begin(thread, conn)
        keeps = answer(self, conn)
        while keeps and self._clients.has_next_head(conn):
            conn.deadline = time.monotonic() + self._seconds_to_answer
            keeps = answer(self, conn)
        self._threads.end(thread)
        if not thread.polls:
            self._write_lines()
        self._answering.discard(conn)
        if keeps:
            self._clients.await_request(conn)
        else:
            self._clients.close(conn)

    def _begin(self, thread: PollingThread, answering: Connection | _Lines) -> None:
        self._threads.begin(thread, answering)
        if self._is_asleep:
            self._wakes.put(None)

    def _write_lines_watched(self) -> bool:
        """Write what is held, as an answer: another thread polls where the log is slow."""
        if not (isinstance(self.log, GunicornLogger) and self.log.holds_lines):
            return False
        thread = self._threads.polling
        assert thread
        self._begin(thread, _Lines())
        has_written = self._write_lines()
        self._threads.end(thread)
        return has_written or not thread.polls

    def before_wait(self, conn: Connection) -> None:
        """To be called by a request that waits on purpose, or computes for long: its deadline is
        put off, and another thread polls meanwhile."""
        conn.deadline = time.monotonic() + self._seconds_to_answer
        conn.before_block()


def served_by(worker: Any) -> Service | None:
    """Give the service that a worker serves; None where loading the application failed."""
    extensions = getattr(getattr(worker, "wsgi", None), "extensions", {})
    service: Service | None = extensions.get(KEY)
    return service


def _allow_open_files(wanted: int) -> int:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted and soft != resource.RLIM_INFINITY:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return wanted if soft == resource.RLIM_INFINITY else soft
