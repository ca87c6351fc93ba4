"""The thread that keeps the state current, and goes on after a failure."""

from __future__ import annotations

import gc
import logging
import secrets
import threading
import time
from collections.abc import Callable, Sequence

from app.backoff import backoff_seconds
from app.following.event_log import EventLog
from app.following.history import History
from app.following.publisher import Publisher
from app.following.reporter import Reporter
from app.following.restoring import Restoring
from app.following.session import Session
from app.following.state_cache import StateCache
from app.following.state_file import StateFile
from app.following.status import STALE_AFTER_SECONDS, Status
from app.following.validation import Validation
from app.loaders import Loader, load_json
from app.message import Stopping
from app.settings import Settings
from app.settings.files import Stamp
from app.state import State
from app.topic_log import CLIENT, Record, Refused, wait_after_refusal
from app.tracing import UNTRACED, MessageSpan, Tracing

log = logging.getLogger(__name__)

LONGEST_BACKOFF_SECONDS = 2.0
# a connection that lasts this long was a good one, and what ends it is a failure of its own
LASTING_SECONDS = 30.0


class Consumer:
    """Follows the topic in a daemon thread of its own and publishes to `state`.

    `_stopping` is what other threads tell it; `initial_load_done`, `status` and the time of
    `_last_loop` are what it tells them. All else belongs to the thread alone.

    Attributes:
        initial_load_done: set as soon as the state is known, or something keeps it from that.
    """

    def __init__(
        self,
        settings: Settings,
        state: State,
        history: History,
        reports: Sequence[Callable[[Status], None]] = (),
        loader: Loader = load_json,
        state_file: StateFile | None = None,
        tracing: Tracing = UNTRACED,
    ) -> None:
        """
        Args:
            reports: called with each new status, by the thread.
            state_file: where the state is kept for a start without a broker; None where it is not.
        """
        self._settings = settings
        self._state = state
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._last_loop = 0.0
        self._failures_in_a_row = 0
        self._refusals_in_a_row = 0
        self.initial_load_done = threading.Event()
        self._event_log = EventLog(settings.topic)
        status = Status(
            settings.topic,
            CLIENT,
            stale_after=STALE_AFTER_SECONDS + settings.conflate_ms / 1000,
        )
        self._reporter = Reporter(settings, status, reports, self._event_log, self._after_failure)
        self._cache = StateCache(state_file) if state_file else None

        def begin_span(record: Record) -> MessageSpan:
            return tracing.message(settings.topic, record.partition, record.offset, record.headers)

        validation = Validation(
            loader,
            self._event_log,
            history,
            self._checkpoint,
            keeps_values=self._cache is not None,
            begin_span=begin_span,
        )
        publisher = Publisher(
            state,
            settings.initial,
            history,
            validation,
            self._reporter,
            self._event_log,
            self.initial_load_done.set,
            self._cache,
        )
        self._restoring = (
            Restoring(self._cache, validation, publisher, self._reporter, self._event_log)
            if self._cache
            else None
        )
        self._session = Session(
            settings,
            validation,
            publisher,
            self._reporter,
            self._event_log,
            self._checkpoint,
            self._stopping.wait,
            self._while_unanswered,
            self._cache,
        )

    @property
    def status(self) -> Status:
        """How following goes."""
        return self._reporter.status

    def start(self) -> None:
        """Start the thread, in the process that is to serve: a thread does not survive a fork."""
        self._last_loop = time.monotonic()
        self._reporter.update(
            group_id=self._new_group_id(),
            current_as_of=self._last_loop,
        )
        if self._cache:
            self._cache.start()
        self._thread = threading.Thread(target=self._run, name="consumer", daemon=True)
        self._thread.start()

    def stop(self, timeout: float = 2.0) -> None:
        """End the thread, waiting for it up to `timeout` seconds; from a signal's handler too, be
        it in the middle of `start`."""
        until = time.monotonic() + timeout
        self._stopping.set()
        self.initial_load_done.set()
        if self._thread and self._thread.is_alive():
            self._thread.join(timeout)
        if self._cache:
            self._cache.join(max(until - time.monotonic(), 0.0))

    def is_alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def seconds_since_loop(self) -> float:
        return time.monotonic() - self._last_loop

    def _new_group_id(self) -> str | None:
        if not self._settings.commit_positions:
            return None
        return f"{self._settings.group_prefix}-{secrets.token_hex(8)}"

    def _run(self) -> None:
        group = self.status.group_id
        log.info("Following %s: %s", f"as {group}" if group else "without a group", self._settings)
        self._state.explain(f"connecting to {self._settings.bootstrap_servers}")
        try:
            self._follow()
        except Stopping:
            pass
        finally:
            if self._cache:
                self._cache.stop()

    def _follow(self) -> None:
        """
        Raises:
            Stopping: following is to end.
        """
        while not self._stopping.is_set():
            began = time.monotonic()
            files = self._settings.security.files_stamp()
            try:
                self._session.run()
            except Exception as error:  # noqa: BLE001  # whatever it is, following goes on
                was_connected = self.status.is_connected
                if time.monotonic() - began > LASTING_SECONDS:
                    self._failures_in_a_row = self._refusals_in_a_row = 0
                self._note_failure(error)
            if was_connected:
                # kafka-python 3 leaves the sockets of connections that failed in reference cycles
                gc.collect()
            self._pause(tried_with=files)

    def _note_failure(self, error: Exception) -> None:
        self._reporter.failed(error)
        self._event_log.flush()
        self._failures_in_a_row += 1
        self._refusals_in_a_row = self._refusals_in_a_row + 1 if isinstance(error, Refused) else 0
        self._last_loop = time.monotonic()

    def _pause(self, tried_with: Stamp) -> None:
        if self._refusals_in_a_row:
            wait_after_refusal(
                self._settings.security, tried_with, self._refusals_in_a_row, self._wait
            )
        else:
            failures = self._failures_in_a_row
            self._stopping.wait(backoff_seconds(failures, LONGEST_BACKOFF_SECONDS))

    def _wait(self, seconds: float) -> bool:
        self._last_loop = time.monotonic()
        return self._stopping.wait(seconds)

    def _after_failure(self, reason: str) -> None:
        trouble = self._restoring.after_failure() if self._restoring else ""
        self._state.explain(f"{reason}; {trouble}" if trouble else reason)
        self.initial_load_done.set()

    def _while_unanswered(self) -> None:
        self._checkpoint()
        if self._restoring:
            self._restoring.while_unanswered()

    def _checkpoint(self) -> None:
        self._last_loop = time.monotonic()
        if self._stopping.is_set():
            raise Stopping
