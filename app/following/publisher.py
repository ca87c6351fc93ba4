"""From the latest messages to the state that is served."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from app.following.event_log import EventLog
from app.following.follower import Follower
from app.following.history import History
from app.following.latest import LatestMessages
from app.following.reporter import Reporter
from app.following.retries import Pending
from app.following.state_cache import StateCache
from app.following.state_file import Kept
from app.following.validation import Validation
from app.message import StateMessage
from app.state import Snapshot, State
from app.topic_log import PartitionError, Record

MOST_ERRORS_TOLD = 3


class Publisher:
    """Serves the newest message that loads. For the consumer thread only.

    Attributes:
        latest: the latest messages, which outlive a connection.
    """

    def __init__(
        self,
        state: State,
        initial: str,
        history: History,
        validation: Validation,
        reporter: Reporter,
        event_log: EventLog,
        initial_load_done: Callable[[], object],
        cache: StateCache | None = None,
    ) -> None:
        """
        Args:
            initial: the JSON text of the state while the topic holds no valid message.
            initial_load_done: called as soon as there is a state, or something keeps it from
                becoming known.
            cache: keeps what is served; None where nothing is kept.
        """
        self._state = state
        self._initial = initial
        self._history = history
        self._validation = validation
        self._reporter = reporter
        self._event_log = event_log
        self._initial_load_done = initial_load_done
        self._cache = cache
        self._positions: dict[int, int] = {}
        self._last_loaded: StateMessage | None = None
        self.latest = LatestMessages(validation.validate, self._load, validation.is_cached)

    def begin_another_topic(self) -> None:
        """Forget what was read of the topic before; its state stays until there is another."""
        self.latest.keep_only(())
        self._positions = {}

    def publish(self, follower: Follower) -> None:
        """Serve the newest message that loads, or say why there is none yet."""
        status = self._reporter.status
        if not status.is_from_log and not follower.is_located:
            self._explain_missing(follower.missing)
            return
        published = status.snapshot
        newest = self._newest(follower)
        self.report_loading(self.latest.pending)
        if newest is None and (trouble := self._trouble()):
            self._state.explain(trouble)
            self._initial_load_done()
            return
        if newest is None and follower.missing:
            self._explain_missing(follower.missing)
            return
        newest = newest or Snapshot(self._initial)
        # first: who is served it finds it counted
        if newest != published:
            delay = _seconds_since(newest.timestamp) if status.is_from_log else None
            self._note(newest, update_delay=delay, cached=False)
            self._keep(newest)
        elif status.cached:
            self._reporter.update(cached=False)
        self._state.publish(newest, self._taken_into_account(follower))
        if newest != published:
            self._initial_load_done()
            self._log(newest, is_first=published is None)

    def publish_kept(self, snapshot: Snapshot | None, as_of: float) -> None:
        """Serve what was on the disk until the log is read; that was current at `as_of`.

        Args:
            snapshot: None for the initial value.
        """
        snapshot = snapshot or Snapshot(self._initial)
        self._note(snapshot, cached=True, current_as_of=as_of)
        self._state.publish(snapshot, {}, self._state.view().reason)
        self._initial_load_done()
        self._event_log.restored(snapshot, self._reporter.status.stale_seconds)

    def _newest(self, follower: Follower) -> Snapshot | None:
        status = self._reporter.status
        served = status.snapshot
        self._last_loaded = None
        newest = self.latest.newest(served, follower.read_back, is_from_log=status.is_from_log)
        if not status.is_from_log:
            return newest
        if newest and served and newest.is_older_than(served) and not follower.is_located:
            return served  # what takes its place may still be found
        return newest or served

    def _trouble(self) -> str | None:
        """Why it is not known yet whether there is a message to serve."""
        pending = self.latest.pending
        return str(pending[0]) if pending else self.latest.unread_because

    def _taken_into_account(self, follower: Follower) -> Mapping[int, int]:
        """By partition, the offset before which every message is served or has given way to the one
        that is. A message that is retried has not."""
        self._positions |= follower.positions
        positions = dict.fromkeys(follower.progress, 0) | self._positions
        for pending in self.latest.pending:
            positions[pending.partition] = min(positions[pending.partition], pending.offset)
        return positions

    def _note(self, newest: Snapshot, **changes: Any) -> None:
        self._reporter.update(updates=self._reporter.status.updates + 1, snapshot=newest, **changes)
        self._history.note_served(newest)
        newest.span.served(newest.version, newest.served)

    def _keep(self, newest: Snapshot) -> None:
        message, self._last_loaded = self._last_loaded, None
        if self._cache is None:
            return
        record = None
        if newest.offset is not None:
            # what was loaded last is what is served
            assert message
            assert message.record_id == newest.record_id
            record = Record(message.partition, message.offset, message.timestamp, message.value)
        status = self._reporter.status
        kept = Kept(status.topic, self._validation.topic_id, record)
        self._cache.keep(kept, status.current_as_of)

    def _log(self, newest: Snapshot, is_first: bool) -> None:
        if is_first:
            self._event_log.first_state(newest)
        else:
            self._event_log.update(newest)

    def _explain_missing(self, missing: Mapping[int, PartitionError | None]) -> None:
        errors = [
            f"partition {partition} cannot be read: {error}"
            for partition, error in missing.items()
            if error
        ]
        locating = f"locating the last valid message of {self._reporter.status.topic}"
        self._state.explain("; ".join([locating, *errors[:MOST_ERRORS_TOLD]]))
        if errors:
            self._initial_load_done()

    def report_loading(self, pending: Sequence[Pending]) -> None:
        changes = {**self._validation.counts(), "pending": pending}
        status = self._reporter.status
        if any(getattr(status, name) != value for name, value in changes.items()):
            self._reporter.update(**changes)

    def _load(self, message: StateMessage) -> Snapshot:
        if not self._reporter.status.is_from_log:
            self._state.explain(
                f"loading the message in partition {message.partition}, offset {message.offset}"
            )
        loaded = self._validation.load(message)
        self._last_loaded = message
        return loaded


def _seconds_since(timestamp: int | None) -> float | None:
    """How long ago a message's timestamp was; None if it has none (-1). A producer's clock may be
    ahead."""
    if timestamp is None or timestamp < 0:
        return None
    return max(time.time() - timestamp / 1000, 0.0)
