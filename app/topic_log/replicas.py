"""Which replica of a partition is asked for records: the leader, or one that is nearer."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple


class _Nearest(NamedTuple):
    node: int
    until: float


class Replicas:
    """Knows which broker the leaders say is nearer than they are (KIP-392). For the thread that
    follows.

    Args:
        rack: where this client is; empty where only leaders are to be asked.
        seconds: for how long what a leader has said counts, and for how long only leaders are asked
            after a nearer one has failed.
        now: a clock that never goes back, in seconds.
    """

    def __init__(
        self, rack: str, seconds: float, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._rack = rack
        self._seconds = seconds
        self._now = now
        self._nearest: dict[int, _Nearest] = {}
        self._only_leaders_until = 0.0

    @property
    def are_asked(self) -> bool:
        """Whether others than the leaders ever are."""
        return bool(self._rack)

    @property
    def rack(self) -> str:
        """Where a leader is told that this client is."""
        return self._rack if self._now() >= self._only_leaders_until else ""

    def nearest(self, partition: int) -> int | None:
        """The broker to be asked in place of the leader, if there is one."""
        nearest = self._nearest.get(partition)
        if nearest is None or self._now() >= nearest.until:
            return None
        return nearest.node

    def note(self, partition: int, node: int) -> None:
        """Note what the leader says."""
        self._nearest[partition] = _Nearest(node, self._now() + self._seconds)

    def note_failure(self) -> None:
        """Note that a broker has failed, be it the nearest or not."""
        self._nearest.clear()
        self._only_leaders_until = self._now() + self._seconds
