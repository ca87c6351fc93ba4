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


def require_servable(
    path: Path, limits: Limits, seconds: float, checkpoint: Callable[[], None]
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
    try_out(path, limits, seconds, checkpoint)


def try_out(path: Path, limits: Limits, seconds: float, checkpoint: Callable[[], None]) -> None:
    """Load the model at `path` and run it once, for up to `seconds`.

    `checkpoint` is called every half a second; what it raises ends the trial.

    Raises:
        InvalidMessage: with reason `model`: it cannot be loaded, or ends the process that does.
        RetryableError: with reason `slow`, `memory` or `trial`.
    """
    end = time.monotonic() + seconds
    with _started(str(path.resolve()), *map(str, limits), str(seconds)) as process:
        try:
            while True:
                checkpoint()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    told, _ = process.communicate(timeout=POLL_SECONDS)
                    break
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


def _started(*arguments: str) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            [sys.executable, "-m", __name__, *arguments],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.DEVNULL,
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


def _run(path: str, threads: str, request_bytes: str, seconds: str) -> None:
    """Load and run the model, and print why it is refused, if it is."""
    # ends this process also if the one that waits for it is killed
    signal.setitimer(signal.ITIMER_REAL, float(seconds))
    os.nice(NICENESS)
    with contextlib.suppress(OSError):  # only Linux has it
        # where memory is short the kernel kills this process, and not a worker
        Path("/proc/self/oom_score_adj").write_text("1000")
    try:
        Model.load(Path(path), UNNAMED, Limits(int(threads), int(request_bytes)))
    except NotServed as error:
        print(json.dumps([type(error).__name__, error.reason, str(error)]))
        sys.exit(REFUSED)


if __name__ == "__main__":
    _run(*sys.argv[1:])
