"""A network between a client and a server, which can lose connections without a word."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from collections.abc import Iterator


class Network(socketserver.ThreadingTCPServer):
    """Forwards from `port` to the port `target` of this machine.

    What was connected when it went down stays open on both sides and carries nothing any more.

    Attributes:
        connections: how many there have been.
    """

    daemon_threads = True

    def __init__(self, target: int) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.target = target
        self.port = self.server_address[1]
        self.generation = 0
        self.connections = 0
        self.is_down = False

    def go_down(self) -> None:
        self.is_down = True
        self.generation += 1

    def come_back(self) -> None:
        self.is_down = False


class _Connection(socketserver.BaseRequestHandler):
    server: Network

    def handle(self) -> None:
        self._generation = self.server.generation
        self.server.connections += 1
        with socket.create_connection(("127.0.0.1", self.server.target)) as target:
            back = threading.Thread(target=self._carry, args=(target, self.request), daemon=True)
            back.start()
            self._carry(self.request, target)

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if not self.server.is_down and self._generation == self.server.generation:
                    sink.sendall(data)


@contextlib.contextmanager
def network(target: int) -> Iterator[Network]:
    with Network(target) as between:
        threading.Thread(target=between.serve_forever, daemon=True).start()
        yield between
        between.shutdown()
