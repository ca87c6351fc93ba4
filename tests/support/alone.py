"""Tests that measure run while no other does, though pytest-xdist's workers run beside each other."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

# longer than any test takes
WAIT_SECONDS = 900
LOOK_SECONDS = 0.02


class Turns:
    """One of the processes that run tests; all of them have the same folder.

    Whoever measures closes the gate, and waits until those that are inside have left.
    """

    def __init__(self, folder: Path) -> None:
        self._gate = _Lock(folder / "gate")
        self._inside = _Lock(folder / "inside")
        self._is_alone = False

    def begin(self, alone: bool) -> None:
        if self._is_alone:
            return
        self._gate.take(fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        self._inside.take(fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        self._is_alone = alone
        if not alone:
            self._gate.release()

    def end(self, next_is_alone: bool) -> None:
        if self._is_alone and next_is_alone:
            return
        self._inside.release()
        self._gate.release()
        self._is_alone = False


class _Lock:
    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_CREAT | os.O_RDWR)

    def take(self, how: int) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            try:
                fcntl.flock(self._file, how | fcntl.LOCK_NB)
            except BlockingIOError:
                assert time.monotonic() < deadline, "another test does not end"
                time.sleep(LOOK_SECONDS)
            else:
                return

    def release(self) -> None:
        fcntl.flock(self._file, fcntl.LOCK_UN)
