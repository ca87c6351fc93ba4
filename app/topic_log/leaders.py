"""Which broker leads which partition, by what the client's metadata says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from app.topic_log.error_codes import LEADER_NOT_AVAILABLE
from app.topic_log.installed import adapter


@dataclass(frozen=True)
class Leader:
    """The broker that leads a partition.

    Attributes:
        node: the broker's id.
        epoch: how many leaders the partition has had (KIP-101); -1 with brokers before Kafka 2.8.
    """

    node: int
    epoch: int

    def follows(self, other: Leader) -> bool:
        """Whether this one took `other`'s place; metadata from a broker that is behind may still
        tell of one from before it."""
        if self.epoch >= 0 and other.epoch >= 0:
            return self.epoch > other.epoch
        return self != other


class Leaders:
    """Keeps each partition's leader up to date. For the thread that follows."""

    def __init__(self, cluster: Any, topic: str) -> None:
        self._cluster = cluster
        self._topic = topic
        self._refreshed = 0.0
        self._leaders: dict[int, Leader] = {}
        self._errors: dict[int, int] = {}

    def refresh(self) -> set[int]:
        """Give the partitions that have another leader than before, or a first one."""
        refreshed = self._cluster._last_successful_refresh_ms
        if refreshed == self._refreshed:
            return set()
        self._refreshed = refreshed
        new = set()
        for partition in self._cluster.partitions_for_topic(self._topic) or ():
            node, epoch, error = adapter.requests.leader(self._cluster, self._topic, partition)
            if node < 0:
                self._errors[partition] = error or LEADER_NOT_AVAILABLE
                continue
            self._errors.pop(partition, None)
            leader, known = Leader(node, epoch), self._leaders.get(partition)
            if known is None or leader.follows(known):
                self._leaders[partition] = leader
                new.add(partition)
        return new

    def of(self, partition: int) -> Leader | None:
        """The partition's leader, or the last that it had; None if it never had one."""
        return self._leaders.get(partition)

    def error(self, partition: int) -> int:
        """Kafka's code of why the partition has no leader now; 0 if it has one."""
        return self._errors.get(
            partition, 0 if partition in self._leaders else LEADER_NOT_AVAILABLE
        )
