"""How following goes, for those who look after it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from app.following.retries import Pending
from app.state import Snapshot

# brokers answer a fetch after half a second, whether there is a message or not
STALE_AFTER_SECONDS = 3.0


@dataclass(frozen=True)
class Progress:
    """How a partition is read.

    Attributes:
        position: the offset that is read next; None until its last valid message is located.
        end: the offset at which it ends; None if that is not known.
        error: why it cannot be read now, if so.
    """

    position: int | None
    end: int | None
    error: str | None = None

    @property
    def lag(self) -> int | None:
        if self.position is None or self.end is None:
            return None
        return max(self.end - self.position, 0)


@dataclass(frozen=True)
class LastError:
    at: datetime
    error: str


@dataclass(frozen=True)
class Refused:
    """A message that was looked at and is invalid."""

    at: datetime
    topic_id: str | None
    partition: int
    offset: int
    reason: str
    detail: str

    def is_before(self, other: Refused) -> bool:
        """Whether both are of one partition, where the other comes later."""
        log, other_log = (self.topic_id, self.partition), (other.topic_id, other.partition)
        return log == other_log and self.offset < other.offset


@dataclass(frozen=True)
class Status:
    """What the consumer thread last said of itself.

    Attributes:
        created_topic_at: when the thread has created the topic; None if it was there.
        connected_since: None while it is not following.
        partitions: by number; none while it is not following.
        connections: how often following began.
        failures: how often it ended, or could not begin.
        updates: how many states were published.
        invalid_messages: how many were looked at and are none, by reason.
        current_as_of: when the end of every partition was last known, and read up to, on the clock
            of `time.monotonic`; when the thread began before it was.
        stale_after: how many seconds may lie between two such times.
        last_invalid: the last of them; in a partition the one with the highest offset.
        failed_loads: how often a loader did not accept a message, or not now, by reason.
        pending: those that are to be tried again, and would be the state: the newest first.
        partition_errors: how often a partition could not be read, by Kafka's name of the error.
        fetches: how many requests for records were sent.
        skipped_messages: how many were not looked at, for there were newer ones.
        group_is_refused: whether the ACLs forbid the group, so that no position is committed.
        snapshot: the last of those that were published; None before the first.
        update_delay: seconds from its message's timestamp until it was served; None where it was
            there already when following began.
    """

    topic: str
    client: str
    group_id: str = ""
    topic_id: str | None = None
    created_topic_at: datetime | None = None
    connected_since: datetime | None = None
    partitions: Mapping[int, Progress] = field(default_factory=dict)
    current_as_of: float = field(default_factory=time.monotonic)
    stale_after: float = STALE_AFTER_SECONDS
    connections: int = 0
    failures: int = 0
    updates: int = 0
    invalid_messages: Mapping[str, int] = field(default_factory=dict)
    last_invalid: Refused | None = None
    failed_loads: Mapping[str, int] = field(default_factory=dict)
    pending: Sequence[Pending] = ()
    partition_errors: Mapping[str, int] = field(default_factory=dict)
    fetches: int = 0
    skipped_messages: int = 0
    snapshot: Snapshot | None = None
    group_is_refused: bool = False
    update_delay: float | None = None
    last_error: LastError | None = None

    @property
    def is_connected(self) -> bool:
        return self.connected_since is not None

    @property
    def reason(self) -> str | None:
        """Why it is not connected."""
        return self.last_error.error if self.last_error and not self.is_connected else None

    @property
    def unreadable(self) -> dict[int, str]:
        """By partition that cannot be read now, why."""
        return {
            partition: progress.error
            for partition, progress in self.partitions.items()
            if progress.error
        }

    @property
    def lag(self) -> int | None:
        """Of all partitions; None while that of one is not known."""
        lags = [progress.lag for progress in self.partitions.values()]
        known = [lag for lag in lags if lag is not None]
        return sum(known) if known and len(known) == len(lags) else None

    @property
    def stale_seconds(self) -> float:
        """For how long the log's end has not been confirmed; 0 while it is as often as it should
        be, on a topic without a new message too."""
        seconds = time.monotonic() - self.current_as_of
        return seconds if seconds > self.stale_after else 0.0
