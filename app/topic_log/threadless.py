"""kafka-python 3 without a thread of its own.

Its consumer starts one for the network and hands each poll over to it twice; without one, whoever
polls does that work (`kafka.net.selector.NetworkSelector.run`), as with kafka-python-ng.
"""

from __future__ import annotations

from typing import Any

from kafka.net.compat import KafkaNetClient
from kafka.net.selector import NetworkSelector


class ThreadlessClient(KafkaNetClient):  # type: ignore[misc]  # the client has no types
    """The client that a consumer works through. For one thread only, which has to poll."""

    def __init__(self, **config: Any) -> None:
        super().__init__(net=_ThreadlessSelector(**config), **config)


class _ThreadlessSelector(NetworkSelector):  # type: ignore[misc]
    def start(self) -> None:
        pass

    def wakeup(self) -> None:
        """Nobody waits while the only thread does something else."""
