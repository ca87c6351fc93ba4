"""The thread that keeps the state on the disk."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from app.backoff import backoff_seconds
from app.following.state_file import Kept, StateFile
from app.logs import Throttle

log = logging.getLogger(__name__)

# between two times that the file is written, or said to be current
PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0


class StateCache:
    """Keeps the newest state on the disk, in a daemon thread of its own: no slow disk holds
    following up.

    The consumer thread says what is to be kept, and until when it is current. `_changed` guards
    what it says; nothing blocks while holding it. All else belongs to the thread alone.

    Attributes:
        file: where it is kept.
        error: why that cannot be done now; None if it can. For any thread.
    """

    def __init__(self, file: StateFile, now: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            now: the clock of `as_of`, in seconds.
        """
        self.file = file
        self._now = now
        self._changed = threading.Condition()
        self._kept: Kept | None = None
        self._is_new = False
        self._as_of = 0.0
        self._is_over = False
        self._failures = 0
        self._log_failure = Throttle(log.warning, limit=1, period=60.0)
        self._thread: threading.Thread | None = None
        self.error: str | None = None

    def start(self) -> None:
        """Start the thread, in the process that is to serve: a thread does not survive a fork."""
        self._thread = threading.Thread(target=self._run, name="state cache", daemon=True)
        self._thread.start()

    def keep(self, kept: Kept, as_of: float, *, is_new: bool = True) -> None:
        """Have this kept, and nothing before it any more.

        Args:
            is_new: False for what the file holds already.
        """
        with self._changed:
            self._kept, self._as_of, self._is_new = kept, as_of, is_new
            self._changed.notify_all()

    def confirm(self, as_of: float) -> None:
        """Note until when what is kept is known to be current."""
        with self._changed:
            self._as_of = as_of

    def stop(self) -> None:
        """End the thread, once what is to be kept is."""
        with self._changed:
            self._is_over = True
            self._changed.notify_all()

    def join(self, timeout: float) -> None:
        if self._thread and self._thread.is_alive():
            self._thread.join(timeout)

    def _run(self) -> None:
        self.file.remove_leftovers()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_new or self._is_over, PAUSE_SECONDS)
                is_over = self._is_over
            pause = self.step()
            if is_over:
                return
            with self._changed:
                self._changed.wait_for(lambda: self._is_over, pause)

    def step(self) -> float:
        """Bring the file up to date; gives for how many seconds nothing is to be written then."""
        self._log_failure.flush()
        with self._changed:
            kept, as_of, is_new = self._kept, self._as_of, self._is_new
        if kept is None:
            return 0.0
        try:
            is_kept = self.file.keep(kept, time.time() - (self._now() - as_of), is_new=is_new)
        except OSError as error:
            self._failures += 1
            self.error = f"{self.file.path}: {error.strerror or type(error).__name__}"
            self._log_failure("The state cannot be kept: %s", self.error)
            return max(backoff_seconds(self._failures, LONGEST_PAUSE_SECONDS), PAUSE_SECONDS)
        if self.error:
            log.info("The state is kept again: %s", self.file.path)
        self._failures, self.error = 0, None
        with self._changed:
            if self._kept is kept and is_kept:
                self._is_new = False
        return PAUSE_SECONDS if is_new else 0.0
