"""What models compute now, each run with a client that waits for it, and an end."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable

from onnxruntime import RunOptions
from werkzeug.exceptions import GatewayTimeout, HTTPException

from app.serving import do_nothing
from app.web.limits import has_left

# between two looks at what runs
LOOK_SECONDS = 0.5
# after which a run shares its core with the next
TURN_SECONDS = 1.0
# after which who waits for a core looks whether it is still to have one
LONGEST_WAIT_SECONDS = 5.0
# where no server says how many processes share this machine's
DEFAULT_CORES = 1


class ClientLeft(HTTPException):
    """Nobody waits for the answer; nginx has this status for it, and it is logged and counted."""

    code = 499
    description = "the client has left"


class Run:
    """A context in which a model computes.

    Attributes:
        options: for onnxruntime, with which the run can be ended.
        has_core: whether it has one of the cores; its `Runs` says so.
        ended_by: why it was ended, if so.
    """

    def __init__(self, runs: Runs, connection: socket.socket | None, is_slow: bool) -> None:
        self.options = RunOptions()
        self.connection = connection
        self.is_slow = is_slow
        self.asked = self.began = time.monotonic()
        self.has_core = False
        self.ended_by: HTTPException | None = None
        self._runs = runs

    def __enter__(self) -> Run:  # noqa: PYI034  # there is no other
        """
        Raises:
            GatewayTimeout: no core was free for it in time.
            ClientLeft: nobody waits for it any more.
        """
        self._runs.begin(self)
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """
        Raises:
            GatewayTimeout: the run took too long.
            ClientLeft: nobody waited for it.
        """
        self._runs.end(self)
        if isinstance(error, ValueError) and self.ended_by:
            raise self.ended_by from error

    def terminate(self, why: HTTPException) -> None:
        """Have it fail before the model's next operation."""
        self.ended_by = why
        self.options.terminate = True


class Runs:
    """Has only so many slow runs compute at once as there are cores, for more of them take longer
    for each other; and ends, by a thread of its own, those that take too long and those whose
    client has left.

    `_lock` guards `_running`, and which runs have a core.
    """

    def __init__(self, seconds: float, look_seconds: float = LOOK_SECONDS) -> None:
        """
        Args:
            seconds: how long a run may take.
        """
        self._seconds = seconds
        self._look_seconds = look_seconds
        self._lock = threading.Lock()
        self._running: set[Run] = set()
        self._cores = threading.Semaphore(DEFAULT_CORES)
        self._before_wait: Callable[[socket.socket], None] = do_nothing
        self._stopping = threading.Event()

    def start(
        self,
        cores: int,
        before_wait: Callable[[socket.socket], None],
    ) -> None:
        """
        Args:
            cores: how many slow runs may compute at once.
            before_wait: called at each look with the connection of what still runs, so that no
                deadline of the server ends it before.
        """
        self._cores = threading.Semaphore(cores)
        self._before_wait = before_wait
        threading.Thread(target=self._run, name="model-runs", daemon=True).start()

    def stop(self) -> None:
        """Have the thread end; what runs is not ended."""
        self._stopping.set()

    def bounded(self, connection: socket.socket | None, is_slow: bool = False) -> Run:
        """Give a run that is ended when it takes too long, or its client has left.

        Args:
            connection: of the client that waits; None where the server does not show it.
            is_slow: whether it is to wait for a core.
        """
        return Run(self, connection, is_slow)

    def begin(self, run: Run) -> None:
        with self._lock:
            self._running.add(run)
        if run.is_slow:
            self._await_core(run)
        if run.ended_by:
            self.end(run)
            raise run.ended_by

    def _await_core(self, run: Run) -> None:
        while not run.ended_by and time.monotonic() < run.asked + self._seconds:
            if self._cores.acquire(timeout=min(LONGEST_WAIT_SECONDS, self._seconds)):
                with self._lock:
                    run.has_core, run.began = True, time.monotonic()
                return
        if not run.ended_by:
            run.terminate(self._too_slow())

    def end(self, run: Run) -> None:
        with self._lock:
            self._running.remove(run)
        self._free_core_of(run)

    def _free_core_of(self, run: Run) -> None:
        with self._lock:
            had_core, run.has_core = run.has_core, False
        if had_core:
            self._cores.release()

    def _run(self) -> None:
        while not self._stopping.wait(self._look_seconds):
            with self._lock:
                running = list(self._running)
            for run in running:
                self._look_at(run)

    def _look_at(self, run: Run) -> None:
        now = time.monotonic()
        if now > run.began + TURN_SECONDS:
            self._free_core_of(run)
        if now > run.asked + self._seconds:
            run.terminate(self._too_slow())
        elif run.connection and has_left(run.connection):
            run.terminate(ClientLeft())
        elif run.connection:
            self._before_wait(run.connection)

    def _too_slow(self) -> GatewayTimeout:
        return GatewayTimeout(f"not computed within MODEL_INFER_SECONDS, {self._seconds}")
