"""The trial of a model: its first load and run, in a process of its own, where a crash or a hang
harms nothing else."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection, Pipe
from pathlib import Path

from app.message_errors import InvalidMessage, NotServed, RetryableError
from app.model import malloc
from app.model.external_data import names_external_data
from app.model.free_memory import free_memory
from app.model.model import Limits, Model

POLL_SECONDS = 0.5
NICENESS = 10
# what a model does; other signals come from outside
CRASHES = {
    signal.SIGABRT,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGILL,
    signal.SIGSEGV,
    signal.SIGSYS,
    signal.SIGTRAP,
}
UNNAMED = {"name": "", "version": ""}
STATUS = Path("/proc/self/status")
DEFAULT_STACK = 8 * 2**20
ERRORS = {error.__name__: error for error in (InvalidMessage, RetryableError)}


class _Process:
    """A process that tries models out.

    Attributes:
        tried: how many it has tried out.
    """

    def __init__(self) -> None:
        """
        Raises:
            RetryableError: with reason `trial`: there is none to be had.
        """
        self.tried = 0
        try:
            self._pipe, other = Pipe()
            with other:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", __name__, str(other.fileno())],
                    cwd=Path(__file__).parents[2],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=[other.fileno()],
                    start_new_session=True,
                )
        except OSError as error:
            raise RetryableError(
                "trial", f"there is no process to load it in: {error.strerror}"
            ) from error

        # from here, for what it imports takes most of its time
        with contextlib.suppress(ProcessLookupError):  # it has ended
            os.setpriority(os.PRIO_PROCESS, self._process.pid, NICENESS)

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, asked: list[object]) -> None:
        self.tried += 1
        with contextlib.suppress(BrokenPipeError):  # how it ended is seen when it does not answer
            self._pipe.send_bytes(json.dumps(asked).encode())

    def answers(self, seconds: float) -> bool:
        """Whether it does within `seconds`, or has ended."""
        return self._pipe.poll(seconds)

    def answer(self) -> list[str] | None:
        """Give why the model is refused; None if it is not.

        Raises:
            EOFError: the process has ended.
        """
        try:
            refused: list[str] | None = json.loads(self._pipe.recv_bytes())
        except ConnectionResetError as error:  # it has not read what it was asked
            raise EOFError from error
        return refused

    def end(self, patience: float = 0.0) -> int:
        """Give its exit status; kill it if it does not end within some seconds."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(patience)
        self._process.kill()
        self._pipe.close()
        return self._process.wait()


class Trials:
    """Tries models out, one after the other, in a process that goes on to the next. For one thread
    only."""

    def __init__(self) -> None:
        self._ready: _Process | None = None
        self._sharers = 1

    def share_memory(self, processes: int) -> None:
        """Note how many processes of this machine load each model when it is tried out."""
        self._sharers = processes

    def make_ready(self) -> None:
        """Have a process wait for the next model: what it imports takes a quarter of a second, and
        45 MB for as long as it waits."""
        if self._ready is None:
            with contextlib.suppress(RetryableError):  # the trial itself will tell
                self._ready = _Process()

    def close(self) -> None:
        """End the process that waits; it also ends when this one does."""
        ready, self._ready = self._ready, None
        if ready:
            ready.end()

    def require_servable(
        self, path: Path, limits: Limits, seconds: float, checkpoint: Callable[[], None]
    ) -> None:
        """Check that the model at `path` is whole, and try it out.

        Raises:
            InvalidMessage: with reason `external_data`, or as `try_out`.
            RetryableError: as `try_out`: it is not known whether it can be served.
        """
        if names_external_data(path, checkpoint):
            raise InvalidMessage(
                "external_data",
                "accepted are models that have all their data in one file: "
                'onnx.save(onnx.load("model.onnx"), "one.onnx")',
            )
        self.try_out(path, limits, seconds, checkpoint)

    def try_out(
        self, path: Path, limits: Limits, seconds: float, checkpoint: Callable[[], None]
    ) -> None:
        """Load the model at `path` and run it once, for up to `seconds`.

        `checkpoint` is called every half a second; what it raises ends the trial.

        Raises:
            InvalidMessage: with reason `model`: it cannot be loaded, or ends the process that does.
            RetryableError: with reason `slow`, `memory` or `trial`.
        """
        process = self._take()
        try:
            refused = self._answer_of(process, path, limits, seconds, checkpoint)
            self._ready = process
        except EOFError:  # the process has ended
            status = process.end(patience=POLL_SECONDS)
            if -status in CRASHES and process.tried > 1:  # one before it may have done the harm
                return self.try_out(path, limits, seconds, checkpoint)
            raise _refusal(status, seconds) from None
        finally:
            if process is not self._ready:
                process.end()
        if refused:
            error, reason, detail = refused
            raise ERRORS[error](reason, detail)

    def _answer_of(
        self,
        process: _Process,
        path: Path,
        limits: Limits,
        seconds: float,
        checkpoint: Callable[[], None],
    ) -> list[str] | None:
        """
        Raises:
            EOFError: the process has ended.
        """
        end = time.monotonic() + seconds
        memory = free_memory()
        share = None if memory is None else memory // self._sharers
        process.ask([str(path.resolve()), *limits, seconds, share])
        while True:
            checkpoint()
            if process.answers(POLL_SECONDS):
                return process.answer()
            if time.monotonic() > end:
                raise _too_slow(seconds)

    def _take(self) -> _Process:
        ready, self._ready = self._ready, None
        return ready if ready and ready.is_alive() else _Process()


def _refusal(status: int, seconds: float) -> NotServed:
    if status >= 0:
        told = f"the process that was to load it ended with {status}"
        return RetryableError("trial", told)
    ended_by = signal.Signals(-status)
    if ended_by in CRASHES:
        return InvalidMessage("model", f"its first load or run ends the process by {ended_by.name}")
    if ended_by == signal.SIGALRM:
        return _too_slow(seconds)
    if ended_by == signal.SIGKILL:
        return RetryableError(
            "memory", "its first load or run was killed, as where memory is short"
        )
    return RetryableError("trial", f"the process that was to load it was ended by {ended_by.name}")


def _too_slow(seconds: float) -> RetryableError:
    return RetryableError("slow", f"its first load and run did not end in {seconds:g} s")


def _run(pipe: Connection) -> None:
    """Load and run each model that is asked for, and say why it is refused, if it is."""
    with contextlib.suppress(OSError):  # only Linux has it
        # where memory is short the kernel kills this process, and not a worker
        Path("/proc/self/oom_score_adj").write_text("1000")
    malloc.return_large_blocks()
    while True:
        try:
            path, threads, request_bytes, seconds, memory = json.loads(pipe.recv_bytes())
        except EOFError:  # nobody is there any more
            return
        if memory is not None:
            _limit_memory(memory, threads)
        # ends this process also if the one that waits for it is killed
        signal.setitimer(signal.ITIMER_REAL, seconds)
        refused = _refused(Path(path), Limits(threads, request_bytes))
        signal.setitimer(signal.ITIMER_REAL, 0)
        pipe.send_bytes(json.dumps(refused).encode())


def _refused(path: Path, limits: Limits) -> list[str] | None:
    try:
        Model.load(path, UNNAMED, limits)
    except NotServed as error:
        return [type(error).__name__, error.reason, str(error)]
    return None


def _limit_memory(free: int, threads: int) -> None:
    """Have what needs more than is free fail here: a kernel that is out of memory may end the
    whole container (`memory.oom.group`). Of a thread's stack next to nothing is used."""
    own = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmData:"))
    stack, _ = resource.getrlimit(resource.RLIMIT_STACK)
    stacks = threads * (DEFAULT_STACK if stack == resource.RLIM_INFINITY else stack)
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard == resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_DATA, (int(own.split()[1]) * 1024 + free + stacks, hard))


if __name__ == "__main__":
    _run(Connection(int(sys.argv[1])))
