"""The thread that keeps the state current: connect, locate, follow, and again after a failure."""

from __future__ import annotations

import dataclasses
import gc
import logging
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, NoReturn

from app.backoff import pause_seconds
from app.following.event_log import Journal
from app.following.follower import Follower
from app.following.history import History
from app.following.latest import LatestMessages
from app.following.status import STALE_AFTER_SECONDS, LastError, Status
from app.following.validation import Verdicts
from app.loaders import load_json
from app.loaders.protocol import Loader
from app.message import StateMessage, Stopping
from app.message_errors import InvalidMessage
from app.settings import Settings
from app.state import Snapshot, State
from app.topic_log import (
    CLIENT,
    KafkaError,
    PartitionError,
    TopicLog,
    TopicLogError,
    explain,
)

log = logging.getLogger(__name__)

LONGEST_PAUSE_SECONDS = 2.0
# a connection that lasts this long was a good one, and what ends it is a failure of its own
LASTING_SECONDS = 30.0
TOPIC_SECONDS = 0.2
MOST_ERRORS_TOLD = 3


class Consumer:
    """Follows the topic in a daemon thread of its own and publishes to `state`.

    `_stopping` is what other threads tell it; `settled`, `status` and the time of `_last_loop` are
    what it tells them, each replaced as a whole. All else belongs to the thread alone.

    Attributes:
        settled: set as soon as the state is known, or something keeps it from becoming so.
        status: how it goes.
    """

    def __init__(
        self,
        settings: Settings,
        state: State,
        history: History,
        reports: Sequence[Callable[[Status], None]] = (),
        loader: Loader = load_json,
    ) -> None:
        self._settings = settings
        self._state = state
        self._history = history
        self._reports = reports
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._last_loop = 0.0
        self._positions: dict[int, int] = {}
        self._failures_in_a_row = 0
        self._last_failure = ""
        self._journal = Journal(settings.topic)
        self._verdicts = Verdicts(loader, self._journal, history, self.before_wait)
        self._latest = LatestMessages(self._verdicts.judge, self._load, self._verdicts.is_at_hand)
        self._partition_errors: Counter[str] = Counter()
        self._skipped_before = self._fetches_before = 0
        self.settled = threading.Event()
        self.status = Status(
            settings.topic,
            CLIENT,
            stale_after=STALE_AFTER_SECONDS + settings.conflate_ms / 1000,
        )

    def start(self) -> None:
        """Start the thread, in the process that is to serve: a thread does not survive a fork."""
        self._last_loop = time.monotonic()
        self._report(
            group_id=f"{self._settings.group_prefix}-{secrets.token_hex(8)}",
            current_as_of=self._last_loop,
        )
        self._thread = threading.Thread(target=self._run, name="consumer", daemon=True)
        self._thread.start()

    def stop(self, timeout: float = 2.0) -> None:
        """End the thread, waiting for it up to `timeout` seconds; from a signal's handler too, be
        it in the middle of `start`."""
        self._stopping.set()
        self.settled.set()
        if self._thread and self._thread.is_alive():
            self._thread.join(timeout)

    def is_alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def seconds_since_loop(self) -> float:
        return time.monotonic() - self._last_loop

    def _report(self, **changes: Any) -> None:
        status = dataclasses.replace(self.status, **changes)
        for report in self._reports:
            report(status)
        self.status = status  # last: who reads it finds the metrics say the same

    def _run(self) -> None:
        log.info("Following as %s: %s", self.status.group_id, self._settings)
        self._state.explain(f"connecting to {self._settings.bootstrap_servers}")
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                self._follow_one_connection()
            except Stopping:
                break
            except Exception as error:  # noqa: BLE001  # whatever it is, following goes on
                had_connected = self.status.connected_since is not None
                if time.monotonic() - began > LASTING_SECONDS:
                    self._failures_in_a_row = 0
                self._note_failure(error)
                self._journal.flush()
                self._failures_in_a_row += 1
                self._last_loop = time.monotonic()
            if had_connected:
                # kafka-python 3 leaves the sockets of connections that failed in reference cycles
                gc.collect()
            self._stopping.wait(pause_seconds(self._failures_in_a_row, LONGEST_PAUSE_SECONDS))

    def _note_failure(self, error: Exception) -> None:
        reason = explain(error, self._settings)
        news = reason != self._last_failure
        if news or self.status.connected_since:
            is_expected = isinstance(error, KafkaError) or not news
            self._journal.failure(reason, traceback_of=None if is_expected else error)
        self._last_failure = reason
        self._state.explain(reason)
        self._report(
            connected_since=None,
            partitions={},
            failures=self.status.failures + 1,
            last_error=LastError(datetime.now(timezone.utc), reason),
        )
        self.settled.set()

    def _follow_one_connection(self) -> NoReturn:
        topic_log = TopicLog(self._settings, self.status.group_id, listener=self)
        try:
            self._wait_for_topic(topic_log)
            if topic_log.topic_id != self._verdicts.topic_id:
                self._latest.keep_only(())
                self._positions = {}
            self._verdicts.topic_id = topic_log.topic_id
            follower = Follower(
                topic_log,
                self._verdicts.judge,
                self._skipped_undecodable,
                self._note_partition_error,
                self._journal.partition_recovery,
            )
            self._skipped_before = self.status.skipped_messages
            self._fetches_before = self.status.fetches
            while True:
                self._follow(topic_log, follower)
        except Stopping:
            self._delete_group(topic_log)
            raise
        finally:
            topic_log.close()

    def _delete_group(self, topic_log: TopicLog) -> None:
        try:
            topic_log.delete_group()
        except Exception as error:  # noqa: BLE001  # a client cut off raises assertions too
            log.warning("The group %s is left behind: %r", self.status.group_id, error)

    def _wait_for_topic(self, topic_log: TopicLog) -> None:
        if topic_log.partitions():
            return
        if not self._settings.topic_auto_create:
            self._note_failure(
                TopicLogError(
                    f"the topic {self._settings.topic} does not exist, and "
                    "KAFKA_TOPIC_AUTO_CREATE is false"
                )
            )
        while not topic_log.partitions():
            if self._settings.topic_auto_create and topic_log.create_topic():
                self._journal.created_topic()
                self._report(created_topic_at=datetime.now(timezone.utc))
            self.before_wait()
            self._stopping.wait(TOPIC_SECONDS)

    def _follow(self, topic_log: TopicLog, follower: Follower) -> None:
        passed_before = follower.passed
        follower.step(self._latest)
        if follower.has_read:
            self._note_connected()
        self._publish(follower)
        topic_log.commit(follower.positions)
        self._report_progress(follower)
        self._journal.flush()
        if follower.passed > passed_before:
            # there may be many more, of which only the last will matter
            self._stopping.wait(self._settings.conflate_ms / 1000)

    def _report_progress(self, follower: Follower) -> None:
        self._report(
            partitions=follower.progress,
            current_as_of=follower.confirmed_at or self.status.current_as_of,
            skipped_messages=self._skipped_before + follower.skipped,
            fetches=self._fetches_before + follower.fetches,
            partition_errors=dict(self._partition_errors),
        )

    def _note_partition_error(self, error: PartitionError) -> None:
        self._partition_errors[error.name] += 1
        self._journal.partition_error(error.partition, str(error))

    def _note_connected(self) -> None:
        if self.status.connected_since:
            return
        if self._last_failure:
            self._journal.recovery()
        self._report(
            connected_since=datetime.now(timezone.utc),
            topic_id=self._verdicts.topic_id,
            connections=self.status.connections + 1,
        )

    def _publish(self, follower: Follower) -> None:
        published = self.status.snapshot
        if published is None and not follower.is_located:
            self._explain_missing(follower.missing)
            return
        newest = self._newest(follower)
        self._report_loading()
        pending = self._latest.retries.pending
        if newest is None and pending:
            self._state.explain(str(pending[0]))
            self.settled.set()
            return
        if newest is None and follower.missing:
            self._explain_missing(follower.missing)
            return
        newest = newest or Snapshot(self._settings.initial)
        self._positions |= follower.positions
        taken_into_account = dict.fromkeys(follower.progress, 0) | self._positions
        for message in pending:
            position = taken_into_account[message.partition]
            taken_into_account[message.partition] = min(position, message.offset)
        is_news = newest != published
        if is_news:
            # first: who is served it finds it counted
            self._report(
                updates=self.status.updates + 1,
                snapshot=newest,
                update_delay=_seconds_since(newest.timestamp) if published else None,
            )
            self._history.note_served(newest)
        self._state.publish(newest, taken_into_account)
        if not is_news:
            return
        self.settled.set()
        if published is None:
            self._journal.first_state(newest)
        else:
            self._journal.update(newest)

    def _newest(self, follower: Follower) -> Snapshot | None:
        served = self.status.snapshot
        newest = self._latest.newest(served, follower.read_back)
        if newest and served and newest.is_older_than(served) and not follower.is_located:
            return served  # what takes its place may still be found
        return newest or served

    def _explain_missing(self, missing: Mapping[int, PartitionError | None]) -> None:
        errors = [
            f"partition {partition} cannot be read: {error}"
            for partition, error in missing.items()
            if error
        ]
        locating = f"locating the last valid message of {self._settings.topic}"
        self._state.explain("; ".join([locating, *errors[:MOST_ERRORS_TOLD]]))
        if errors:
            self.settled.set()

    def _report_loading(self) -> None:
        changes = {**self._verdicts.so_far(), "pending": self._latest.retries.pending}
        if any(getattr(self.status, name) != value for name, value in changes.items()):
            self._report(**changes)

    def _load(self, message: StateMessage) -> Snapshot:
        if self.status.snapshot is None:
            self._state.explain(
                f"loading the message in partition {message.partition}, offset {message.offset}"
            )
        return self._verdicts.load(message)

    def before_wait(self) -> None:
        self._last_loop = time.monotonic()
        if self._stopping.is_set():
            raise Stopping

    def _skipped_undecodable(self, partition: int, offset: int, detail: str) -> None:
        self._verdicts.refuse(partition, offset, InvalidMessage("unreadable", detail))

    def may_not_commit(self) -> None:
        self._journal.warn_once(
            f"The ACLs do not let {self._settings.who} use the group {self.status.group_id} "
            "(READ on groups with that prefix): following goes on, and Kafka's tools do not see it"
        )


def _seconds_since(timestamp: int | None) -> float | None:
    """Of a message's timestamp; none is -1, and a producer's clock may be ahead."""
    if timestamp is None or timestamp < 0:
        return None
    return max(time.time() - timestamp / 1000, 0.0)
