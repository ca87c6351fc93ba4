"""The thread that keeps the state current: connect, locate, follow, and again after a failure."""

from __future__ import annotations

import logging
import secrets
import threading
from collections import Counter
from collections.abc import Mapping

from app.locate import locate, newest_accepted, newest_tail
from app.logs import Throttle
from app.message import InvalidMessage, Message, state_json
from app.settings import Settings
from app.state import Snapshot, State
from app.topic_log import KafkaError, TopicLog

log = logging.getLogger(__name__)

RETRY_SECONDS = 1.0
TOPIC_SECONDS = 0.2
VIEW_CHARACTERS = 100


class _Stopping(Exception):
    """Raised out of whatever the thread is waiting for."""


class Consumer:
    """Follows the topic in a daemon thread of its own and publishes to `state`.

    `_stopping` is what other threads tell it; all else belongs to the thread, and others may
    only look at it.

    Attributes:
        invalid_messages: how many were skipped, by reason.
    """

    def __init__(self, settings: Settings, state: State) -> None:
        self._settings = settings
        self._state = state
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._tails: dict[int, Snapshot] = {}
        self._positions: dict[int, int] = {}
        self._published: Snapshot | None = None
        self._log_invalid = Throttle(log.warning)
        self._log_update = Throttle(log.info)
        self._last_failure = ""
        self.invalid_messages: Counter[str] = Counter()
        self.group_id = ""

    def start(self) -> None:
        """Start the thread, in the process that is to serve: a thread does not survive a fork."""
        self.group_id = f"{self._settings.group_prefix}-{secrets.token_hex(8)}"
        self._thread = threading.Thread(target=self._run, name="consumer", daemon=True)
        self._thread.start()

    def stop(self, timeout: float = 2.0) -> None:
        """End the thread, waiting for it up to `timeout` seconds."""
        self._stopping.set()
        if self._thread:
            self._thread.join(timeout)

    def is_alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _run(self) -> None:
        log.info("Following as %s: %s", self.group_id, self._settings)
        while not self._stopping.is_set():
            self._state.explain(f"connecting to {self._settings.bootstrap_servers}")
            try:
                self._follow_one_connection()
            except _Stopping:
                break
            except KafkaError as error:
                self._note_failure(str(error))
            except Exception as error:
                log.exception("The consumer failed; it will connect anew")
                self._note_failure(repr(error))
            self._stopping.wait(RETRY_SECONDS)

    def _note_failure(self, reason: str) -> None:
        self._state.explain(reason)
        if reason != self._last_failure:
            log.warning("Not following %s: %s", self._settings.topic, reason)
            self._last_failure = reason

    def _follow_one_connection(self) -> None:
        topic_log = TopicLog(
            self._settings, self.group_id, self._note_unreadable, self._raise_if_stopping
        )
        try:
            self._wait_for_topic(topic_log)
            self._tails, self._positions = {}, {}
            while True:
                self._follow(topic_log)
        except _Stopping:
            self._delete_group(topic_log)
            raise
        finally:
            topic_log.close()

    def _delete_group(self, topic_log: TopicLog) -> None:
        try:
            topic_log.delete_group()
        except Exception as error:  # noqa: BLE001  # a client cut off raises assertions too
            log.warning("The group %s is left behind: %r", self.group_id, error)

    def _raise_if_stopping(self) -> None:
        if self._stopping.is_set():
            raise _Stopping

    def _wait_for_topic(self, topic_log: TopicLog) -> None:
        while not topic_log.partitions():
            self._raise_if_stopping()
            if self._settings.topic_auto_create:
                topic_log.create_topic()
            else:
                self._note_failure(f"topic {self._settings.topic} does not exist")
            self._stopping.wait(TOPIC_SECONDS)

    def _follow(self, topic_log: TopicLog) -> None:
        new_partitions = topic_log.partitions() - self._positions.keys()
        if new_partitions:
            self._state.explain(f"locating the last valid message of {self._settings.topic}")
            self._catch_up(topic_log, topic_log.ranges(new_partitions))
            self._last_failure = ""
        runs = topic_log.poll()
        for run in runs:
            newest = newest_accepted(run, self._judge)
            if newest:
                self._tails[run[0].partition] = newest
        self._positions = topic_log.positions()
        if runs:
            self._publish()
            backlog = topic_log.backlog()
            if backlog:
                self._catch_up(topic_log, backlog)
        topic_log.commit(self._positions)
        self._log_invalid.flush()
        self._log_update.flush()

    def _catch_up(self, topic_log: TopicLog, ranges: Mapping[int, range]) -> None:
        self._tails.update(locate(topic_log, ranges, self._judge))
        self._positions.update({partition: offsets.stop for partition, offsets in ranges.items()})
        topic_log.seek(self._positions)
        self._publish()

    def _publish(self) -> None:
        newest = newest_tail(self._tails) or self._published or Snapshot(self._settings.initial)
        if newest == self._published:
            return
        self._state.publish(newest)
        if self._published is None:
            self._log_first(newest)
        else:
            self._log_update("State updated to: %s", _view(newest.json))
        self._published = newest

    def _log_first(self, snapshot: Snapshot) -> None:
        if snapshot.offset is None:
            log.info(
                "Initializing API with the initial state %s: %s holds no valid message",
                _view(snapshot.json),
                self._settings.topic,
            )
        else:
            log.info(
                "Initializing API with data from msg: partition %d, offset %d, timestamp %d, "
                "state %s",
                snapshot.partition,
                snapshot.offset,
                snapshot.timestamp,
                _view(snapshot.json),
            )

    def _judge(self, message: Message) -> Snapshot | None:
        try:
            return Snapshot(
                state_json(message.value), message.timestamp, message.partition, message.offset
            )
        except InvalidMessage as error:
            self._note_invalid(message.partition, message.offset, error.reason, str(error))
            return None

    def _note_unreadable(self, partition: int, offset: int, detail: str) -> None:
        self._note_invalid(partition, offset, "unreadable", detail)

    def _note_invalid(self, partition: int, offset: int, reason: str, detail: str) -> None:
        self.invalid_messages[reason] += 1
        self._log_invalid(
            "Skipped an invalid message: partition %d, offset %d, %s: %s",
            partition,
            offset,
            reason,
            _view(detail),
        )


def _view(text: str) -> str:
    """As much of `text` as belongs into a log line."""
    return text if len(text) <= VIEW_CHARACTERS else text[:VIEW_CHARACTERS] + "…"
