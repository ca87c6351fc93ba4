"""gunicorn's gthread worker, which no client can hold up."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import re
import resource
import socket
import struct
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from selectors import EVENT_READ
from typing import Any

from gunicorn.arbiter import Arbiter
from gunicorn.http.body import Body, ChunkedReader
from gunicorn.http.errors import LimitRequestHeaders
from gunicorn.workers.gthread import TConn, ThreadWorker

from app.environment import SettingsError

# what a client has to send the head of a request, and to close a connection that is closed here
PATIENCE_SECONDS = 5
# of a head, which gunicorn limits by its parts only, 100 fields of 8 KiB
HEAD_BYTES = 64 * 1024

# beside the connections: the log, the listening sockets, those to the brokers
SPARE_FILES = 200

END_OF_HEAD = re.compile(rb"\n\r?\n")
RESET_AT_CLOSE = struct.pack("ii", 1, 0)


@dataclass
class _Deadline:
    at: float


class Worker(ThreadWorker):  # type: ignore[misc]
    """Waits for clients in the poller, where one costs a file descriptor, not in a thread.

    gthread hands a new connection to a thread at once, which then waits for the request, and
    waits without end for its rest and for the answer to be read; and it waits for a client to
    close in its main loop. Here a thread gets a request whose head has come, and until `timeout`.
    """

    worker_connections: int

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # until when: of connections in the poller, the oldest first, and of those in a thread,
        # which alone are looked up by others than the main thread
        self._polled: dict[TConn, float] = {}
        self._served: dict[socket.socket, _Deadline] = {}
        self._seconds_to_serve = self.cfg.timeout or math.inf

    def init_process(self) -> None:
        limit = _allow_open_files(self.worker_connections + SPARE_FILES) - SPARE_FILES
        if limit < self.worker_connections:
            self.worker_connections = max(limit, 1)
            self.log.warning(
                "At most %d connections: more files must not be open", self.worker_connections
            )
        # the threads hold none but those that are being answered
        self.max_keepalived = max(
            self.worker_connections - self.cfg.threads, self.worker_connections // 2
        )
        for listener in self.sockets:
            with contextlib.suppress(AttributeError, OSError):  # only Linux has it, and only TCP
                # for answers that the kernel still holds when the connection is closed here
                listener.setsockopt(
                    socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, self.cfg.timeout * 1000
                )
        super().init_process()

    def load_wsgi(self) -> None:
        try:
            super().load_wsgi()
        except SettingsError as error:
            self.log.critical("Error: %s", error)
            sys.exit(Arbiter.WORKER_BOOT_ERROR)  # of which the master ends, too

    def accept(self, listener: socket.socket) -> None:
        super().accept(listener)
        if self.nr_conns >= self.worker_connections and len(self._polled) > 1:
            self._drop(next(iter(self._polled)))  # or it would accept no more

    def enqueue_req(self, conn: TConn) -> None:
        if self.cfg.is_ssl or self.cfg.protocol != "http" or self.cfg.http2_cleartext != "off":
            super().enqueue_req(conn)  # the head is not one that can be read here
            return
        conn.init()
        conn.sock.setblocking(False)
        if END_OF_HEAD.search(conn.parser.unreader.buf.getvalue()):
            self._serve(conn)
        else:
            self._poll(conn, self._read_head)
            self._read_head(conn)

    def _read_head(self, conn: TConn) -> None:
        data = _receive(conn)
        if data is None:
            return
        buffer = conn.parser.unreader.buf
        size = buffer.seek(0, os.SEEK_END) + len(data)
        buffer.write(data)
        buffer.seek(-min(size, len(data) + 2), os.SEEK_END)
        if not data:
            self._drop(conn)
        elif END_OF_HEAD.search(buffer.read()):
            self._serve(conn)
        elif size > HEAD_BYTES and b"\n" not in buffer.getvalue():
            self._serve(conn)  # gunicorn refuses such an address
        elif size > HEAD_BYTES:
            error = LimitRequestHeaders(f"more than {HEAD_BYTES} bytes")
            self.handle_error(None, conn.sock, conn.client, error)
            self._close(conn)

    def _serve(self, conn: TConn) -> None:
        self._unpoll(conn)
        self._served[conn.sock] = _Deadline(time.monotonic() + self._seconds_to_serve)
        super().enqueue_req(conn)

    def give_time(self, sock: socket.socket) -> None:
        """Count `timeout` anew for the request on `sock`; from any thread."""
        deadline = self._served.get(sock)
        if deadline:
            deadline.at = time.monotonic() + self._seconds_to_serve

    def handle_request(self, req: Any, conn: TConn) -> bool:
        should_close = req.should_close

        def closes() -> bool:
            if not _is_read(req.body):
                req.force_close()  # for good, whatever is read after the client was told
            return bool(should_close())

        # asked for the head of the answer; to keep the connection is to wait for the body's rest
        req.should_close = closes
        try:
            return bool(super().handle_request(req, conn))
        finally:
            del req.should_close  # which holds the request, and what was received with it

    def finish_request(self, conn: TConn, fs: Future[Any]) -> None:
        self._served.pop(conn.sock, None)
        if not fs.exception() and fs.result() is False and conn.parser:
            self._close(conn)
        else:
            super().finish_request(conn, fs)

    def _close(self, conn: TConn) -> None:
        """As RFC 9112 has it (9.6): the client closes first, or it could lose the answer."""
        self._unpoll(conn)
        try:
            conn.sock.setblocking(False)
            conn.sock.shutdown(socket.SHUT_WR)
            self._poll(conn, self._discard)
        except OSError:
            self._drop(conn)

    def _discard(self, conn: TConn) -> None:
        if _receive(conn) == b"":
            self._drop(conn)

    def _poll(self, conn: TConn, on_readable: Callable[[TConn], None]) -> None:
        self._polled[conn] = time.monotonic() + PATIENCE_SECONDS

        def when_readable(_: socket.socket) -> None:
            if conn in self._polled:  # and not dropped since the event came
                on_readable(conn)

        self.poller.register(conn.sock, EVENT_READ, when_readable)

    def _unpoll(self, conn: TConn) -> None:
        if self._polled.pop(conn, None):
            self.poller.unregister(conn.sock)

    def _drop(self, conn: TConn) -> None:
        self._unpoll(conn)
        self.nr_conns -= 1
        conn.close()

    def murder_pending(self) -> None:
        super().murder_pending()
        now = time.monotonic()
        for conn in list(itertools.takewhile(lambda conn: self._polled[conn] < now, self._polled)):
            self._drop(conn)
        for sock in [sock for sock, deadline in self._served.items() if deadline.at < now]:
            del self._served[sock]
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
                sock.shutdown(socket.SHUT_RDWR)  # the thread's next call fails


def _allow_open_files(wanted: int) -> int:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted and soft != resource.RLIM_INFINITY:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return wanted if soft == resource.RLIM_INFINITY else soft


def _is_read(body: Body) -> bool:
    """Whether nothing of it is left on the connection."""
    reader = body.reader
    if isinstance(reader, ChunkedReader):
        return not (reader.parser or body.failed)
    return not reader.length


def _receive(conn: TConn) -> bytes | None:
    """What the client has sent, nothing if it closed, None if there is nothing yet."""
    try:
        data: bytes = conn.sock.recv(HEAD_BYTES)
    except BlockingIOError:
        return None
    except OSError:
        return b""
    return data
