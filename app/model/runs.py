"""What models compute now, each run with a client that waits for it, and an end."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections import deque
from collections.abc import Callable

from onnxruntime import RunOptions
from werkzeug.exceptions import GatewayTimeout, HTTPException

from app.serving import do_nothing
from app.web.limits import has_left

log = logging.getLogger(__name__)

# between two looks at what runs
LOOK_SECONDS = 0.5
# after which a run shares its core with the next
TURN_SECONDS = 1.0
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
        turn: of a long one, set when it need not wait any longer: it got one, or was ended.
        ended_by: makes the error of why it was ended, if so. The error itself would keep the frames
            that it comes through, and the run with them.
    """

    def __init__(self, runs: Runs, connection: socket.socket | None, is_long: bool) -> None:
        self.options = RunOptions()
        self.connection = connection
        self.asked = self.began = time.monotonic()
        self.has_core = False
        self.turn = threading.Event() if is_long else None
        self.ended_by: Callable[[], HTTPException] | None = None
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
            raise self.ended_by() from error

    def terminate(self, why: Callable[[], HTTPException]) -> None:
        """Have it fail before the model's next operation."""
        self.ended_by = why
        self.options.terminate = True
        if self.turn:
            self.turn.set()


class Runs:
    """Has only so many long runs compute at once as there are cores, for more of them take longer
    for each other; and ends, by a thread of its own, those that take too long and those whose
    client has left.

    `_lock` guards `_running`, `_waiting`, `_free_cores`, and which runs have a core.
    """

    def __init__(
        self,
        seconds: float,
        look_seconds: float = LOOK_SECONDS,
        turn_seconds: float = TURN_SECONDS,
    ) -> None:
        """
        Args:
            seconds: how long a run may take, with its wait for a core.
            turn_seconds: how long it has a core for itself.
        """
        self._seconds = seconds
        self._look_seconds = look_seconds
        self._turn_seconds = turn_seconds
        self._lock = threading.Lock()
        self._running: set[Run] = set()
        self._waiting: deque[Run] = deque()
        self._free_cores = DEFAULT_CORES
        self._before_wait: Callable[[socket.socket], None] = do_nothing
        self._stopping = threading.Event()

    def start(
        self,
        cores: int,
        before_wait: Callable[[socket.socket], None],
    ) -> None:
        """
        Args:
            cores: how many long runs may compute at once.
            before_wait: called at each look with the connection of what still runs, so that no
                deadline of the server ends it before.
        """
        self._free_cores = cores
        self._before_wait = before_wait
        threading.Thread(target=self._run, name="model-runs", daemon=True).start()

    def stop(self) -> None:
        """Have the thread end; what runs is not ended."""
        self._stopping.set()

    def bounded(self, connection: socket.socket | None, is_long: bool = False) -> Run:
        """Give a run that is ended when it takes too long, or its client has left.

        Args:
            connection: of the client that waits; None where the server does not show it.
            is_long: whether it is to wait for a core.
        """
        return Run(self, connection, is_long)

    @property
    def waiting(self) -> int:
        with self._lock:
            return len(self._waiting)

    def begin(self, run: Run) -> None:
        with self._lock:
            self._running.add(run)
            if run.turn:
                self._waiting.append(run)
        if run.turn:
            self._hand_out_cores()
            run.turn.wait(self._seconds)
            if not run.turn.is_set():
                run.terminate(self._too_slow)
        if run.ended_by:
            self.end(run)
            raise run.ended_by()

    def end(self, run: Run) -> None:
        with self._lock:
            self._running.remove(run)
            if run.turn and run in self._waiting:
                self._waiting.remove(run)
        if run.turn:
            self._free_core_of(run)

    def _free_core_of(self, run: Run) -> None:
        with self._lock:
            self._free_cores += run.has_core
            run.has_core = False
        self._hand_out_cores()

    def _hand_out_cores(self) -> None:
        """Give those that are free to those that have waited longest."""
        with self._lock:
            while self._free_cores > 0 and self._waiting:
                run = self._waiting.popleft()
                run.has_core, run.began = True, time.monotonic()
                self._free_cores -= 1
                if run.turn:
                    run.turn.set()

    def _run(self) -> None:
        while not self._stopping.wait(self._look_seconds):
            with self._lock:
                running = list(self._running)
            for run in running:
                try:
                    self._look_at(run)
                except Exception:
                    log.exception("A run could not be looked after")

    def _look_at(self, run: Run) -> None:
        now = time.monotonic()
        if run.has_core and now > run.began + self._turn_seconds:
            self._free_core_of(run)
        if now > run.asked + self._seconds:
            run.terminate(self._too_slow)
        elif run.connection and has_left(run.connection):
            run.terminate(ClientLeft)
        elif run.connection:
            self._before_wait(run.connection)

    def _too_slow(self) -> GatewayTimeout:
        return GatewayTimeout(f"not computed within MODEL_INFER_SECONDS, {self._seconds}")
