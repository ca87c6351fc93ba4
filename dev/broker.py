"""The embedded broker: librdkafka's mock cluster, reached at a port of our choice."""

from __future__ import annotations

import contextlib
import selectors
import signal
import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator

from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient

CHUNK_BYTES = 65536
PROBE_SECONDS = 2.0
TIMEOUT_SECONDS = 10.0


def brokers(server: str) -> set[str]:
    """The host:port of each broker of the cluster, as the one at `server` tells; none if mute."""
    host, _, port = server.rpartition(":")
    try:
        # at once where nothing listens, which the client below would go on trying
        socket.create_connection((host, int(port)), PROBE_SECONDS).close()
        metadata = AdminClient({"bootstrap.servers": server, "log_level": 0}).list_topics(
            timeout=PROBE_SECONDS
        )
    except (OSError, KafkaException):
        return set()
    return {f"{broker.host}:{broker.port}" for broker in metadata.brokers.values()}


def answers(server: str) -> bool:
    """Whether a Kafka broker answers at this host:port."""
    return bool(brokers(server))


class EmbeddedBroker:
    """A broker in this process that keeps everything in memory.

    It answers kafka-python-ng but not kafka-python 3, whose newer requests it does not know.
    librdkafka chooses its port; clients find it through the metadata.

    Attributes:
        address: host:port that the mock cluster listens on.
    """

    def __init__(self) -> None:
        # the mock cluster lives as long as the client that it was asked of; its thread inherits
        # the mask, without which a signal that is delivered to it ends it
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self._client = Producer(
                {"test.mock.num.brokers": 1, "bootstrap.servers": "unused", "log_level": 3}
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        (broker,) = self._client.list_topics(timeout=TIMEOUT_SECONDS).brokers.values()
        self.address = f"{broker.host}:{broker.port}"

    def create_topic(self, name: str) -> None:
        """The mock cluster knows no CreateTopics; a topic appears when it is asked for."""
        self._client.list_topics(name, timeout=TIMEOUT_SECONDS)


@contextlib.contextmanager
def forwarding(port: int, target: str) -> Iterator[None]:
    """While in the block, what connects to `port` on this machine is connected to `target`.

    Raises:
        OSError: the port is taken.
    """
    host, _, target_port = target.rpartition(":")

    class Forward(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with (
                contextlib.suppress(ConnectionError),
                socket.create_connection((host, int(target_port)), TIMEOUT_SECONDS) as upstream,
            ):
                pipe(self.request, upstream)

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True

    with Server(("127.0.0.1", port), Forward) as server:
        threading.Thread(target=server.serve_forever, name="forward", daemon=True).start()
        try:
            yield
        finally:
            server.shutdown()


def pipe(client: socket.socket, upstream: socket.socket) -> None:
    """Copy bytes both ways until one side closes."""
    with selectors.DefaultSelector() as selector:
        selector.register(client, selectors.EVENT_READ, upstream)
        selector.register(upstream, selectors.EVENT_READ, client)
        while True:
            for key, _ in selector.select():
                source, sink = key.fileobj, key.data
                assert isinstance(source, socket.socket)
                data = source.recv(CHUNK_BYTES)
                # the selector knows nothing of what TLS has read already
                while isinstance(source, ssl.SSLSocket) and source.pending():
                    data += source.recv(CHUNK_BYTES)
                if not data:
                    return
                sink.sendall(data)
