"""The trial of a model: its first load and run, in a process of its own, where a crash or a hang
harms nothing else."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from app.message_errors import InvalidMessage, NotServed, RetryableError
from app.model.external_data import names_external_data
from app.model.model import Limits, Model

POLL_SECONDS = 0.5
NICENESS = 10
REFUSED = 3  # the exit status
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
ERRORS = {error.__name__: error for error in (InvalidMessage, RetryableError)}


class Trials:
    """Tries models out, one after the other. For one thread only."""

    def __init__(self) -> None:
        self._ready: subprocess.Popen[bytes] | None = None

    def make_ready(self) -> None:
        """Have a process wait for the next model: what it imports takes a quarter of a second, and
        45 MB for as long as it waits."""
        if self._ready is None:
            with contextlib.suppress(RetryableError):  # the trial itself will tell
                self._ready = _started()

    def close(self) -> None:
        """End the process that waits; it also ends when this one does."""
        ready, self._ready = self._ready, None
        if ready:
            ready.communicate()

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
        end = time.monotonic() + seconds
        asked: bytes | None = json.dumps([str(path.resolve()), *limits, seconds]).encode()
        with self._take() as process:
            try:
                while True:
                    checkpoint()
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        told, _ = process.communicate(asked, timeout=POLL_SECONDS)
                        break
                    asked = None  # it is told once
                    if time.monotonic() > end:
                        raise _too_slow(seconds)
            finally:
                process.kill()
        if process.returncode < 0:
            raise _ended_by(signal.Signals(-process.returncode), seconds)
        if process.returncode == REFUSED:
            error, reason, detail = json.loads(told.splitlines()[-1])
            raise ERRORS[error](reason, detail)
        if process.returncode:
            raise RetryableError(
                "trial", f"the process that was to load it ended with {process.returncode}"
            )

    def _take(self) -> subprocess.Popen[bytes]:
        ready, self._ready = self._ready, None
        return ready if ready and ready.poll() is None else _started()


def _ended_by(end: signal.Signals, seconds: float) -> NotServed:
    if end in CRASHES:
        return InvalidMessage("model", f"its first load or run ends the process by {end.name}")
    if end == signal.SIGALRM:
        return _too_slow(seconds)
    if end == signal.SIGKILL:
        return RetryableError(
            "memory", "its first load or run was killed, as where memory is short"
        )
    return RetryableError("trial", f"the process that was to load it was ended by {end.name}")


def _started() -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            [sys.executable, "-m", __name__],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        raise RetryableError(
            "trial", f"there is no process to load it in: {error.strerror}"
        ) from error


def _too_slow(seconds: float) -> RetryableError:
    return RetryableError("slow", f"its first load and run did not end in {seconds:g} s")


def _run() -> None:
    """Wait for a model, load and run it, and print why it is refused, if it is."""
    os.nice(NICENESS)
    with contextlib.suppress(OSError):  # only Linux has it
        # where memory is short the kernel kills this process, and not a worker
        Path("/proc/self/oom_score_adj").write_text("1000")
    asked = sys.stdin.read()
    if not asked:  # nobody is there any more
        return
    path, threads, request_bytes, seconds = json.loads(asked)
    # ends this process also if the one that waits for it is killed
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        Model.load(Path(path), UNNAMED, Limits(threads, request_bytes))
    except NotServed as error:
        print(json.dumps([type(error).__name__, error.reason, str(error)]), flush=True)
        os._exit(REFUSED)
    os._exit(0)  # what is loaded need not be taken apart


if __name__ == "__main__":
    _run()
