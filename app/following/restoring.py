"""Serves the state on the disk while the log cannot be read."""

from __future__ import annotations

import time
from collections.abc import Callable

from app.following.event_log import EventLog
from app.following.publisher import Publisher
from app.following.reporter import Reporter
from app.following.retries import Delayed, Retries
from app.following.state_cache import StateCache
from app.following.state_file import Kept
from app.following.validation import Validation
from app.message import StateMessage
from app.message_errors import InvalidMessage, RetryableError
from app.state import Snapshot

# a broker that is there has answered by then, nearly always
PATIENCE_SECONDS = 0.2


class Restoring:
    """Serves what the file holds, until the log is read. For the consumer thread only.

    A worker that ends may yet write what this one does not know, so that the file is looked at
    again after each failure.
    """

    def __init__(
        self,
        cache: StateCache,
        validation: Validation,
        publisher: Publisher,
        reporter: Reporter,
        event_log: EventLog,
    ) -> None:
        self._cache = cache
        self._validation = validation
        self._publisher = publisher
        self._reporter = reporter
        self._event_log = event_log
        self._retries = Retries(time.monotonic)
        self._seal = b""
        self._found: tuple[Kept, float] | None = None
        self._message: StateMessage | None = None
        self._trouble = ""

    def while_unanswered(self) -> None:
        """To be called now and then at a start, for brokers may be silent for long."""
        status = self._reporter.status
        waited = time.monotonic() - status.current_as_of
        if status.snapshot is None and not status.failures and waited > PATIENCE_SECONDS:
            self._serve(self._load_if_cached)

    def after_failure(self) -> str:
        """Give why what is on the disk is not served; empty if it is, or nothing is there."""
        if self._reporter.status.is_from_log:
            return ""
        self._serve(self._validation.load)
        return self._trouble

    def _serve(self, load: Callable[[StateMessage], Snapshot]) -> None:
        """Serve what was found, unless it is served already, or never can be."""
        self._look_at_file()
        if self._found is None:
            return
        kept, as_of = self._found
        self._retries.begin_pass()
        try:
            loaded = self._retries.attempt(self._message, load) if self._message else None
        except InvalidMessage as error:
            self._found = self._message = None
            self._trouble = f"the message on the disk is refused: {error.reason}: {error}"
        except RetryableError as error:
            self._trouble = f"the message on the disk does not load now: {error.reason}: {error}"
        else:
            self._found, self._message, self._trouble = None, None, ""
            self._cache.keep(kept, as_of, is_new=False)
            self._publisher.publish_kept(loaded, as_of)
        self._publisher.report_loading(self._retries.pending)

    def _load_if_cached(self, message: StateMessage) -> Snapshot:
        if not self._validation.is_cached(message):
            raise Delayed
        return self._validation.load(message)

    def _look_at_file(self) -> None:
        """Take what the file holds, unless it held the same the last time."""
        file = self._cache.file
        try:
            seal = file.seal()
            if seal == self._seal:
                return
            self._seal, self._found, self._message, self._trouble = seal, None, None, ""
            kept, as_of = file.read()
            if kept.record:
                self._validation.topic_id = kept.topic_id
                self._message = self._validation.validate(kept.record)
                if self._message is None:
                    raise ValueError("its message is not valid")
            self._found = kept, time.monotonic() - (time.time() - as_of)
        except FileNotFoundError:  # somebody has removed it
            pass
        except Exception as error:  # noqa: BLE001  # whatever it holds, following goes on
            trouble = f"the state on the disk is of no use: {file.path}: {error}"
            if trouble != self._trouble:
                self._event_log.cannot_restore(trouble)
            self._trouble = trouble
