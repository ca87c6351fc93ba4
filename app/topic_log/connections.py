"""The connections to the brokers: which are ready, which take too long, which are lost too soon."""

from __future__ import annotations

import logging
import time
from typing import Any

from app.logs import Throttle
from app.topic_log.connectivity import does_not_answer_at
from app.topic_log.installed import adapter

# a leader that takes longer to answer, or to be connected to, is in trouble
PATIENCE_SECONDS = 3.0
# a connection that is lost sooner after the one before was none
GOOD_SECONDS = 0.25

log = logging.getLogger(__name__)


class Connections:
    """What is known of them, by the broker's id. For the thread that follows."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._unconnected_since: dict[int, float] = {}
        self._ever_connected: set[int] = set()
        self._muted_until: dict[int, float] = {}
        # when the last connection was lost, and whether it had been good
        self._losses: dict[int, tuple[float, bool]] = {}
        self._log_muted = Throttle(log.warning, limit=1, period=60.0)

    def is_ready(self, node: int) -> bool:
        """Whether a request can be sent now. If there is no connection, one is made."""
        now = time.monotonic()
        if now < self._muted_until.get(node, now):
            return False
        if not adapter.requests.is_connected(self._client, node):
            self._unconnected_since.setdefault(node, now)
            return False
        self._unconnected_since.pop(node, None)
        self._ever_connected.add(node)
        return True

    def gives_up(self, node: int) -> bool:
        """Whether it has taken too long to connect; the next attempt has as much time again."""
        now = time.monotonic()
        if now - self._unconnected_since.get(node, now) <= PATIENCE_SECONDS:
            return False
        del self._unconnected_since[node]
        return True

    def mute(self, node: int, seconds: float) -> None:
        """Send nothing for so long, as a broker demands whose quota is used up (KIP-219)."""
        self._muted_until[node] = time.monotonic() + seconds
        self._log_muted(
            "A quota is used up, so messages come late: %s demands a pause of %.1f s",
            self.name(node),
            seconds,
        )

    def was_good(self, node: int, sent_at: float) -> bool:
        """Whether the one that was lost with a request had lasted for a moment.

        Args:
            sent_at: when the request was sent, by `time.monotonic`.
        """
        lost_at, was_good = self._losses.get(node, (0.0, True))
        if sent_at > lost_at:  # others were lost with the same connection
            now = time.monotonic()
            was_good = now - lost_at > GOOD_SECONDS
            self._losses[node] = now, was_good
        return was_good

    def why_unconnected(self, node: int) -> str:
        broker = self._client.cluster.broker_metadata(node)
        if broker and node not in self._ever_connected:
            return does_not_answer_at(broker)
        return f"its leader, {self.name(node)}, cannot be reached"

    def name(self, node: int) -> str:
        """Give the broker's id, and its address where that is known."""
        broker = self._client.cluster.broker_metadata(node)
        return f"broker {node} at {broker.host}:{broker.port}" if broker else f"broker {node}"
