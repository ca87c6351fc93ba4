"""The consumer thread's log lines, at a bounded rate."""

from __future__ import annotations

import logging

from app.logs import Throttle, flush_client_logs, shorten
from app.state import Snapshot

log = logging.getLogger(__name__)

# why a message is refused ends with what would be accepted
DETAIL_CHARACTERS = 500


class EventLog:
    """Logs what happens while following. For the consumer thread only."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._invalid = Throttle(log.warning)
        self._update = Throttle(log.info)
        self._pending = Throttle(log.warning)
        self._failure = Throttle(log.warning, limit=3, period=60.0)
        self._recovery = Throttle(log.info, limit=2, period=60.0)
        self._report_failure = Throttle(log.error, limit=1, period=60.0)
        self._partition_error = Throttle(log.warning, limit=3, period=60.0)
        self._partition_recovery = Throttle(log.info, limit=3, period=60.0)

    def created_topic(self) -> None:
        log.warning(
            "Created the topic %s, which did not exist: if it should have, KAFKA_TOPIC is wrong",
            self._topic,
        )

    def first_state(self, snapshot: Snapshot) -> None:
        if snapshot.offset is None:
            log.info(
                "Initializing API with the initial state %s: %s holds no valid message",
                shorten(snapshot.json),
                self._topic,
            )
        else:
            log.info(
                "Initializing API with data from msg: state %s",
                shorten(snapshot.json),
                extra={
                    **_position(snapshot.partition, snapshot.offset),
                    "timestamp_ms": snapshot.timestamp,
                },
            )
            self.update(snapshot)

    def restored(self, snapshot: Snapshot, seconds: float) -> None:
        log.warning(
            "Initializing API with what is on the disk, and was current %d s ago: state %s",
            seconds,
            shorten(snapshot.json),
            extra=_position(snapshot.partition, snapshot.offset),
        )

    def cannot_restore(self, why: str) -> None:
        log.warning("Not initializing API: %s", why)

    def update(self, snapshot: Snapshot) -> None:
        self._update(
            "State updated to: %s",
            shorten(snapshot.json),
            extra=_position(snapshot.partition, snapshot.offset),
        )

    def invalid(
        self,
        partition: int,
        offset: int,
        reason: str,
        detail: str,
        traceback_of: BaseException | None = None,
    ) -> None:
        self._invalid(
            "Skipped an invalid message: %s: %s",
            reason,
            shorten(detail, DETAIL_CHARACTERS),
            exc_info=traceback_of,
            extra=_position(partition, offset),
        )

    def pending(self, partition: int, offset: int, reason: str, detail: str) -> None:
        self._pending(
            "Not loaded now, to be retried: %s: %s",
            reason,
            shorten(detail, DETAIL_CHARACTERS),
            extra=_position(partition, offset),
        )

    def failure(self, reason: str, traceback_of: Exception | None) -> None:
        self._failure("Not following %s: %s", self._topic, reason, exc_info=traceback_of)

    def recovery(self) -> None:
        self._recovery("Following %s again", self._topic)

    def report_failure(self, error: Exception) -> None:
        self._report_failure("The metrics are not up to date: %r", error, exc_info=error)

    def partition_error(self, partition: int, error: str) -> None:
        self._partition_error("Cannot read partition %d of %s: %s", partition, self._topic, error)

    def partition_recovery(self, partition: int) -> None:
        self._partition_recovery("Reading partition %d of %s again", partition, self._topic)

    def group_refused(self, who: str, group_id: str | None) -> None:
        log.warning(
            "The ACLs do not let %s use the group %s (READ on groups with that prefix): following "
            "goes on, and Kafka's tools do not see it",
            who,
            group_id,
        )

    def flush(self) -> None:
        """Log suppressed lines once the rate limit allows."""
        for throttle in (
            self._invalid,
            self._update,
            self._pending,
            self._failure,
            self._recovery,
            self._report_failure,
            self._partition_error,
            self._partition_recovery,
        ):
            throttle.flush()
        flush_client_logs()


def _position(partition: int | None, offset: int | None) -> dict[str, int | None]:
    """Give the fields that say where a message is; a line of text ends with them."""
    return {"partition": partition, "offset": offset}
