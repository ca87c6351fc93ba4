"""How following goes: the status that `/status`, the stream and the metrics are made from."""

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
    """How far a partition is read.

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
class RefusedMessage:
    """An invalid message."""

    at: datetime
    topic_id: str | None
    partition: int
    offset: int
    reason: str
    detail: str

    def is_before(self, other: RefusedMessage) -> bool:
        """Whether both are of one partition, and the other comes later in it."""
        log, other_log = (self.topic_id, self.partition), (other.topic_id, other.partition)
        return log == other_log and self.offset < other.offset


@dataclass(frozen=True)
class Status:
    """How following goes, as of the thread's last report.

    Attributes:
        group_id: what positions are committed under; None where they are not committed.
        created_topic_at: when the thread has created the topic; None if it was there.
        connected_since: None while it is not following.
        partitions: by number; none while it is not following.
        connections: how often following began.
        failures: how often it ended, or could not begin.
        updates: how many states were published.
        invalid_messages: how many were invalid, by reason.
        current_as_of: when every partition was last confirmed to be read up to its end, on the
            clock of `time.monotonic`; the start of the thread before the first time.
        stale_after: how many seconds after that the state counts as stale.
        last_invalid: the last invalid message; in a partition the one with the highest offset.
        failed_loads: how many messages the loader refused or could not load now, by reason.
        pending: messages that are newer than the state and are retried, the newest first.
        partition_errors: how often a partition could not be read, by Kafka's name of the error.
        fetches: how many requests for records were sent.
        skipped_messages: how many were skipped because there were newer ones.
        group_is_refused: whether the ACLs forbid the group, so that no position is committed.
        snapshot: what is served; None until there is something.
        cached: whether that was on the disk, and the log has not been read.
        cache_error: why the state cannot be kept on the disk now; None if it can, or is not to be.
        update_delay: seconds from its message's timestamp until it was served; None where it was
            there already when following began.
    """

    topic: str
    client: str
    group_id: str | None = None
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
    last_invalid: RefusedMessage | None = None
    failed_loads: Mapping[str, int] = field(default_factory=dict)
    pending: Sequence[Pending] = ()
    partition_errors: Mapping[str, int] = field(default_factory=dict)
    fetches: int = 0
    skipped_messages: int = 0
    snapshot: Snapshot | None = None
    cached: bool = False
    cache_error: str | None = None
    group_is_refused: bool = False
    update_delay: float | None = None
    last_error: LastError | None = None

    @property
    def is_connected(self) -> bool:
        return self.connected_since is not None

    @property
    def is_from_log(self) -> bool:
        """Whether there is a state, and the log was read for it."""
        return self.snapshot is not None and not self.cached

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
        """The lag of all partitions together; None while that of one is not known."""
        lags = [progress.lag for progress in self.partitions.values()]
        known = [lag for lag in lags if lag is not None]
        return sum(known) if known and len(known) == len(lags) else None

    @property
    def stale_seconds(self) -> float:
        """For how long no end of the log was confirmed; 0 as long as that happens often enough. A
        quiet topic is not stale; what was on the disk is."""
        seconds = time.monotonic() - self.current_as_of
        return seconds if self.cached or seconds > self.stale_after else 0.0
