"""kafka-python 3 without a thread of its own, and with fewer calls for what it receives.

Its consumer starts a thread for the network and hands each poll over to it twice; without one,
whoever polls does that work (`kafka.net.selector.NetworkSelector.run`), as with kafka-python-ng.
"""

from __future__ import annotations

import socket
import time
from typing import Any

from kafka.net.compat import KafkaNetClient
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector

from app.topic_log.adapter import RECEIVE_BYTES
from app.topic_log.responsive import PrefersResponsiveBrokers


class ThreadlessClient(KafkaNetClient):  # type: ignore[misc]  # the client has no types
    """The client that a consumer works through. For one thread only, which has to poll."""

    def __init__(self, **config: Any) -> None:
        net = _ThreadlessSelector(**config)
        super().__init__(net=net, manager=_ConnectionManager(net, **config), **config)

    def heard(self) -> dict[Any, float]:
        heard: dict[Any, float] = self._manager.heard()
        return heard

    def ask_another(self) -> bool:
        asks: bool = self._manager.ask_another()
        return asks


class _ThreadlessSelector(NetworkSelector):  # type: ignore[misc]
    def start(self) -> None:
        pass

    def wakeup(self) -> None:
        """Nobody waits while the only thread does something else."""


class _ConnectionManager(PrefersResponsiveBrokers, KafkaConnectionManager):  # type: ignore[misc]
    def heard(self) -> dict[Any, float]:
        now = time.monotonic()
        return {
            node: now - connection.transport.last_read
            for node, connection in self._conns.items()
            if connection.connected
        }

    async def _build_transport(self, *args: Any, **options: Any) -> Any:
        transport = await super()._build_transport(*args, **options)
        if type(transport._sock) is socket.socket:  # TLS has records of 16 KiB
            transport._sock = _Socket(transport._sock)
        return transport


class _Socket(socket.socket):
    def __init__(self, connected: socket.socket) -> None:
        super().__init__(fileno=connected.detach())
        self.setblocking(False)

    def recv(self, size: int, flags: int = 0) -> bytes:
        return super().recv(max(size, RECEIVE_BYTES), flags)
