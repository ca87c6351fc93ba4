"""A client's connection, which gives the poller up before it would block."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
from collections.abc import Callable
from typing import Any

# of what is sent, the head and the body leave together up to this size
MOST_BUFFERED = 64 * 1024
RECEIVE_BYTES = 64 * 1024

RESET_AT_CLOSE = struct.pack("ii", 1, 0)


class Connection:
    """What gunicorn's parser and response take for the socket.

    It belongs to the thread that has the poller while it is polled, and to the thread that answers
    its request from then on.

    Attributes:
        ready: called with it by the thread that polls, when there is something to be received.
        is_polled: whether it is registered with the poller.
        deadline: until when its request has to be answered, on the clock of `time.monotonic`;
            any thread may put it off.
        before_block: called before the thread waits for the client.
    """

    def __init__(self, sock: socket.socket, client: Any, server: Any) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.client = client
        self.server = server
        self.parser: Any = None
        self.is_polled = False
        self.deadline = 0.0
        self.ready: Callable[[Connection], None] = lambda conn: None
        self.before_block: Callable[[], None] = lambda: None
        self._unsent: list[bytes] = []
        self._unsent_size = 0

    def fileno(self) -> int:
        return self.sock.fileno()

    def gettimeout(self) -> float:
        return 0.0

    def settimeout(self, seconds: float | None) -> None:
        """Its deadline is the only time-out."""

    def receive(self) -> bytes | None:
        """Give what has come by now: nothing if the client has closed, None if nothing has come."""
        try:
            data = self.sock.recv(RECEIVE_BYTES)
            # of TLS more may have been received than was asked for, of which the poller does not tell
            while isinstance(self.sock, ssl.SSLSocket) and self.sock.pending():
                data += self.sock.recv(RECEIVE_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None
        except OSError:
            return b""
        return data

    def recv(self, size: int) -> bytes:
        """Receive some of a request's body.

        Raises:
            OSError: the connection is lost, or was cut off.
        """
        while True:
            try:
                return self.sock.recv(size)
            except (BlockingIOError, ssl.SSLWantReadError):
                self._wait_for(select.POLLIN)
            except ssl.SSLWantWriteError:
                self._wait_for(select.POLLOUT)

    def send(self, data: bytes) -> int:
        self.sendall(data)
        self.flush()
        return len(data)

    def sendall(self, data: bytes) -> None:
        """Send, small parts together with what is sent next."""
        if self._unsent_size + len(data) > MOST_BUFFERED:
            self.flush()
            self._send(data)  # all readers of a large state share it: it is not copied
        else:
            self._unsent.append(data)
            self._unsent_size += len(data)

    def flush(self) -> None:
        """Send what was given so far.

        Raises:
            OSError: the connection is lost, or was cut off.
        """
        unsent, self._unsent, self._unsent_size = self._unsent, [], 0
        self._send(b"".join(unsent))

    def _send(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            try:
                left = left[self.sock.send(left) :]
            except (BlockingIOError, ssl.SSLWantWriteError):
                self._wait_for(select.POLLOUT)
            except ssl.SSLWantReadError:
                self._wait_for(select.POLLIN)

    def _wait_for(self, event: int) -> None:
        self.before_block()
        poll = select.poll()
        poll.register(self.sock, event)
        while not poll.poll(1000):
            pass  # a client that takes too long is cut off, which ends this

    def cut_off(self) -> None:
        """Reset the connection; from any thread. The next call of the one that answers fails."""
        with contextlib.suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
            self.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.parser = None  # which holds this connection
        with contextlib.suppress(OSError):
            self.sock.close()
