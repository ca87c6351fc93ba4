"""Processes that do nothing for a while, with their connections open."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

STOP_SECONDS = 10.0
LOOK_SECONDS = 0.001


def freeze(pid: int) -> None:
    """Stop a process, until it gets SIGCONT.

    The thread that takes the signal stops the others, which run on until it gets a core: a worker
    may take a message and an answer may leave meanwhile. So this waits until all have stopped.

    Raises:
        TimeoutError: one runs on.
    """
    os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + STOP_SECONDS
    while not all(map(_has_stopped, Path(f"/proc/{pid}/task").iterdir())):
        if time.monotonic() > deadline:
            raise TimeoutError(f"process {pid} runs on after SIGSTOP")
        time.sleep(LOOK_SECONDS)


def _has_stopped(thread: Path) -> bool:
    try:
        # after the name, which may have spaces and parentheses: T is stopped, Z has ended
        return (thread / "stat").read_text().rpartition(")")[2].split()[0] in "TZ"
    except (FileNotFoundError, ProcessLookupError):
        return True
