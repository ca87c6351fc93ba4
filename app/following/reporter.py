"""How following goes: noted in the status, told to metrics, written to the log."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from typing import Any

from app.following.event_log import EventLog
from app.following.status import LastError, Status
from app.settings import Settings
from app.topic_log import KafkaError, explain


class Reporter:
    """Keeps the status, which the consumer thread writes and any thread reads.

    Attributes:
        status: how following goes; replaced as a whole.
    """

    def __init__(
        self,
        settings: Settings,
        status: Status,
        reports: Sequence[Callable[[Status], None]],
        event_log: EventLog,
        on_failure: Callable[[str], object],
    ) -> None:
        """
        Args:
            reports: called with each new status.
            on_failure: called after each failure with its reason, which keeps the state from
                becoming known.
        """
        self._settings = settings
        self._reports = reports
        self._event_log = event_log
        self._on_failure = on_failure
        self._last_failure = ""
        self.status = status

    def update(self, **changes: Any) -> None:
        status = dataclasses.replace(self.status, **changes)
        for report in self._reports:
            try:
                report(status)
            except Exception as error:  # noqa: BLE001  # following goes on, whatever it is
                self._event_log.report_failure(error)
        self.status = status  # last: who reads it finds the metrics say the same

    def failed(self, error: Exception) -> None:
        """Note that following has ended, or cannot begin."""
        reason = explain(error, self._settings)
        is_news = reason != self._last_failure
        if is_news or self.status.is_connected:
            is_expected = isinstance(error, KafkaError) or not is_news
            self._event_log.failure(reason, traceback_of=None if is_expected else error)
        self._last_failure = reason
        self.update(
            connected_since=None,
            partitions={},
            failures=self.status.failures + 1,
            last_error=LastError(datetime.now(timezone.utc), reason),
        )
        self._on_failure(reason)

    def connected(self, topic_id: str | None) -> None:
        """Note that following goes on; to be called again and again."""
        if self.status.is_connected:
            return
        if self._last_failure:
            self._event_log.recovery()
        self.update(
            connected_since=datetime.now(timezone.utc),
            topic_id=topic_id,
            connections=self.status.connections + 1,
        )
