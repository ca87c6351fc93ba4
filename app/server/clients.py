"""The connections that wait for their clients, which cost a file descriptor each and no thread."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from selectors import EVENT_READ, DefaultSelector
from typing import Any

from gunicorn import http
from gunicorn.http.errors import LimitRequestHeaders
from gunicorn.sock import ssl_context

from app.server import request_heads
from app.server.connection import Connection
from app.server.shares import Share

# what a client has for a TLS handshake, to send the head of a request, and to close a connection
# that is closed here
CLIENT_TIMEOUT_SECONDS = 5
# for what else it sends until then
DISCARD_SECONDS = 30
POLL_SECONDS = 1.0
# while a worker stops
STOP_POLL_SECONDS = 0.01

# how long a client is left to another worker
LEAVE_SECONDS = 0.002
# of those that nobody has taken by then
TAKEN_AT_ONCE = 8

NO_CLIENT = {errno.EAGAIN, errno.ECONNABORTED, errno.EWOULDBLOCK}


class Clients:
    """Waits for handshakes, heads, next requests and closes, each with a deadline.

    What waits here belongs to the thread that polls. A thread that has answered without the poller
    may hand its connection back, by `await_request` and `close`.
    """

    def __init__(
        self,
        cfg: Any,
        log: Any,
        serve: Callable[[Connection], None],
        refuse: Callable[[Connection, Exception], None],
        write_lines: Callable[[], bool],
        share: Share,
    ) -> None:
        """
        Args:
            serve: called by the thread that polls with a connection whose request's head has come,
                which is not waited for any more.
            refuse: tells a client why its request is not served.
            write_lines: called when nothing more is ready; gives whether there was something to
                do, after which another thread may poll.
            share: of the connections of all workers.
        """
        self._cfg = cfg
        # to ask gunicorn's configuration takes a microsecond each time
        self._keep_alive_seconds = cfg.keepalive
        self._proxy_protocol = str(cfg.proxy_protocol)
        self._log = log
        self._serve = serve
        self._refuse = refuse
        self._write_lines = write_lines
        self._share = share
        self._tls = ssl_context(cfg) if cfg.is_ssl else None
        self._poller = DefaultSelector()
        # with what tells whether there may be another connection
        self._listeners: dict[socket.socket, Callable[[], bool]] = {}
        # since when they are left to other workers
        self._left_since: float | None = None
        self._ready: deque[Callable[[], None]] = deque()
        # all that are open, those that are answered too
        self._open: set[Connection] = set()
        # until when each waits, the oldest first
        self._waiting: dict[Connection, float] = {}
        self._next_expiry = 0.0
        self._linger_until = math.inf

    def __len__(self) -> int:
        return len(self._open)

    @property
    def is_listening(self) -> bool:
        return bool(self._listeners)

    def listen(self, listener: socket.socket, has_room: Callable[[], bool]) -> None:
        """
        Args:
            has_room: whether there may be another connection; else the oldest that waits makes
                room.
        """
        listener.setblocking(False)
        self._listeners[listener] = has_room
        self._register_listener(listener)
        self._share.note(len(self._open))

    def _register_listener(self, listener: socket.socket) -> None:
        self.register(listener, partial(self._on_client, listener))

    def stop_listening(self, linger_until: float) -> None:
        """Accept nobody any more; who waits has until then to send what is under way. From any
        thread: the one that polls sees to it."""
        self._linger_until = linger_until

    def register(self, readable: Any, ready: Callable[[], None]) -> None:
        self._poller.register(readable, EVENT_READ, ready)

    def unregister(self, conn: Connection) -> None:
        """Poll it no longer."""
        if conn.is_polled:
            conn.is_polled = False
            self._poller.unregister(conn.sock)

    def poll(self) -> None:
        """Take one thing that is ready; waits for one if there is none."""
        is_stopping = self._linger_until < math.inf
        if is_stopping and self._listeners:
            self._close_listeners()
        if not self._ready:
            if self._write_lines():
                return
            self._drop_expired()
            seconds = STOP_POLL_SECONDS if is_stopping else POLL_SECONDS
            if self._left_since is not None:
                seconds = LEAVE_SECONDS
                self._take_up_listeners()
            self._ready.extend(key.data for key, _ in self._poller.select(seconds))
        if self._ready:
            self._ready.popleft()()

    def _close_listeners(self) -> None:
        for listener in self._listeners:
            if self._left_since is None:
                self._poller.unregister(listener)
            listener.close()
        self._listeners.clear()
        self._left_since = None
        self._share.end()

    def _leave_listeners(self) -> None:
        """Let another worker, which has fewer connections, have the client that comes."""
        self._left_since = time.monotonic()
        for listener in self._listeners:
            self._poller.unregister(listener)

    def _take_up_listeners(self) -> None:
        """Take clients again, and first some of those that no other worker has taken."""
        if self._left_since is not None and time.monotonic() > self._left_since + LEAVE_SECONDS:
            self._left_since = None
            for listener in self._listeners:
                self._register_listener(listener)
                for _ in range(TAKEN_AT_ONCE):
                    self._accept(listener)

    def await_request(self, conn: Connection) -> None:
        """Wait for the next request on a connection."""
        self._wait_for(conn, self._read_head, self._keep_alive_seconds)

    def has_next_head(self, conn: Connection) -> bool:
        """Whether the next request's head has come with what was received before."""
        if isinstance(conn.sock, ssl.SSLSocket) and conn.sock.pending():
            conn.parser.unreader.buf.write(conn.receive() or b"")
        return self._has_head(conn)

    def close(self, conn: Connection) -> None:
        """Close as RFC 9112 has it (9.6): the client closes first, or it could lose the answer."""
        try:
            if isinstance(conn.sock, ssl.SSLSocket):
                with contextlib.suppress(ssl.SSLError):  # the client's part of it is not there yet
                    conn.sock.unwrap()
            conn.sock.shutdown(socket.SHUT_WR)
            discard = partial(self._discard, until=time.monotonic() + DISCARD_SECONDS)
            self._wait_for(conn, discard, CLIENT_TIMEOUT_SECONDS)
        except (OSError, ValueError):  # ValueError: cut off at its deadline, it has no TLS any more
            self._drop(conn)

    def _discard(self, conn: Connection, until: float) -> None:
        """Take what still comes of a body that is not read: most clients read their answer only
        when they have sent all of it."""
        if conn.receive() == b"":
            self._drop(conn)
        else:
            self._waiting[conn] = min(time.monotonic() + CLIENT_TIMEOUT_SECONDS, until)

    def _wait_for(
        self, conn: Connection, ready: Callable[[Connection], None], seconds: float
    ) -> None:
        """Have the thread that polls call `ready` when there is something to be received."""
        conn.ready = ready
        self._waiting.pop(conn, None)
        if not conn.is_polled:
            conn.is_polled = True
            self.register(conn.sock, partial(self._on_readable, conn))
        # from here on it belongs to the thread that polls
        self._waiting[conn] = time.monotonic() + seconds

    def _on_readable(self, conn: Connection) -> None:
        if conn in self._waiting:  # and not dropped since the event came
            conn.ready(conn)

    def _drop(self, conn: Connection) -> None:
        self._waiting.pop(conn, None)
        self.unregister(conn)
        conn.close()
        self._open.discard(conn)
        self._share.note(len(self._open))

    def _drop_expired(self) -> None:
        now = time.monotonic()
        if now < self._next_expiry:
            return
        self._next_expiry = now + POLL_SECONDS if now < self._linger_until else now
        for conn, deadline in list(self._waiting.items()):
            if now > min(deadline, self._linger_until):
                self._drop(conn)

    def _on_client(self, listener: socket.socket) -> None:
        is_there = listener in self._listeners and self._left_since is None
        if is_there and self._share.is_large():
            self._leave_listeners()
        elif is_there:  # and was neither closed nor left to others since the event came
            self._accept(listener)

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, client = listener.accept()
        except OSError as error:
            if error.errno in NO_CLIENT:
                return
            raise
        if not self._listeners[listener]() and self._waiting:
            self._drop(next(iter(self._waiting)))
        conn = Connection(sock, client, listener.getsockname())
        self._open.add(conn)
        self._share.note(len(self._open))
        if self._tls:
            self._begin_handshake(conn, self._tls)
        else:
            self._begin_http(conn)

    def _begin_handshake(self, conn: Connection, tls: ssl.SSLContext) -> None:
        try:
            conn.sock = tls.wrap_socket(
                conn.sock,
                server_side=True,
                do_handshake_on_connect=False,
                suppress_ragged_eofs=self._cfg.suppress_ragged_eofs,
            )
        except OSError:  # the client has left
            self._drop(conn)
            return
        self._wait_for(conn, self._shake_hands, CLIENT_TIMEOUT_SECONDS)
        self._shake_hands(conn)

    def _shake_hands(self, conn: Connection) -> None:
        try:
            conn.sock.do_handshake()  # type: ignore[attr-defined]
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except OSError as error:
            self._log.debug("No TLS handshake with %s: %s", conn.client, error)
            self._drop(conn)
            return
        self._begin_http(conn)
        self._read_head(conn)

    def _begin_http(self, conn: Connection) -> None:
        conn.parser = http.get_parser(self._cfg, conn, conn.client)
        self._wait_for(conn, self._read_head, CLIENT_TIMEOUT_SECONDS)

    def _read_head(self, conn: Connection) -> None:
        data = conn.receive()
        if data is None:
            return
        if not data:
            self._drop(conn)
            return
        buffer = conn.parser.unreader.buf
        size = buffer.seek(0, os.SEEK_END)
        if size == 0:
            self._waiting[conn] = time.monotonic() + CLIENT_TIMEOUT_SECONDS
        size += len(data)
        buffer.write(data)
        is_too_large = size > request_heads.MOST_BYTES
        if self._has_head(conn, len(data)) or (is_too_large and b"\n" not in buffer.getvalue()):
            del self._waiting[conn]
            self._serve(conn)  # gunicorn refuses an address that is too large
        elif is_too_large:
            self._refuse(conn, LimitRequestHeaders(f"more than {request_heads.MOST_BYTES} bytes"))
            self.close(conn)

    def _has_head(self, conn: Connection, new: int | None = None) -> bool:
        # of a connection's first request only
        proxy_protocol = "off" if conn.parser.req_count else self._proxy_protocol
        received = conn.parser.unreader.buf.getvalue()
        return request_heads.is_complete(received, proxy_protocol, new)
