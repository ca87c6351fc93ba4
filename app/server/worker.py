"""gunicorn's gthread worker, which no client can hold up."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import resource
import socket
import ssl
import struct
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from selectors import EVENT_READ
from typing import Any

from gunicorn import http
from gunicorn.arbiter import Arbiter
from gunicorn.http.body import Body, ChunkedReader
from gunicorn.http.errors import LimitRequestHeaders
from gunicorn.sock import ssl_context
from gunicorn.workers.gthread import TConn, ThreadWorker

from app.logs import Throttle
from app.server import request_heads
from app.service import KEY, Service

# what a client has for a TLS handshake, to send the head of a request, and to close a connection
# that is closed here
CLIENT_TIMEOUT_SECONDS = 5

# beside the connections: the log, the listening sockets, those to the brokers
SPARE_FILES = 200

RESET_AT_CLOSE = struct.pack("ii", 1, 0)


@dataclass
class _Deadline:
    at: float


class Worker(ThreadWorker):  # type: ignore[misc]
    """Waits for clients in the poller, where one costs a file descriptor, not in a thread.

    gthread gives each new connection a thread. The thread waits for the request, then without
    limit for its body and for the client to read the answer; the main loop waits for clients to
    close. Here a connection gets a thread when the head of its request has come, and is cut off
    after `timeout` unless `extend_deadline` is called.
    """

    worker_connections: int

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._alive = True
        super().__init__(*args, **kwargs)
        # deadlines of connections in the poller, the oldest first; for the main thread only
        self._polled: dict[TConn, float] = {}
        # deadlines of connections in a thread; any thread may look one up
        self._served: dict[socket.socket, _Deadline] = {}
        self._seconds_to_serve = self.cfg.timeout or math.inf
        self._log_cut_off = Throttle(self.log.warning)

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
        if self.cfg.is_ssl:
            self._tls = ssl_context(self.cfg)
        super().init_process()

    @property
    def alive(self) -> bool:
        """False as soon as it is to end: by a signal, --max-requests, --reload, a lost master."""
        return self._alive

    @alive.setter
    def alive(self, alive: bool) -> None:
        # a signal may come while another one is handled
        is_ending, self._alive = self._alive and not alive, alive
        if is_ending and (service := served_by(self)):
            service.drain()

    def is_parent_alive(self) -> bool:
        if not super().is_parent_alive():
            self.alive = False
        return self.alive

    def load_wsgi(self) -> None:
        # imported here: after --reload the class is another than the master's
        from app.settings import SettingsError

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
        if self._leaves_it_to_gunicorn:
            super().enqueue_req(conn)
        elif self.cfg.is_ssl and not conn.initialized:
            self._begin_handshake(conn)
        else:
            conn.init()
            self._await_head(conn)

    @property
    def _leaves_it_to_gunicorn(self) -> bool:
        """Whether requests come in a form that is not read here: HTTP/2, or not HTTP."""
        over_tls = self.cfg.is_ssl and "h2" in self.cfg.http_protocols
        return self.cfg.protocol != "http" or self.cfg.http2_cleartext != "off" or over_tls

    def _begin_handshake(self, conn: TConn) -> None:
        try:
            conn.sock = self._tls.wrap_socket(
                conn.sock,
                server_side=True,
                do_handshake_on_connect=False,
                suppress_ragged_eofs=self.cfg.suppress_ragged_eofs,
            )
        except OSError:  # the client has left
            self._drop(conn)
            return
        self._poll(conn, self._shake_hands)
        self._shake_hands(conn)

    def _shake_hands(self, conn: TConn) -> None:
        try:
            conn.sock.do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except OSError as error:
            self.log.debug("No TLS handshake with %s: %s", conn.client, error)
            self._drop(conn)
            return
        self._unpoll(conn)
        conn.parser = http.get_parser(self.cfg, conn.sock, conn.client)
        conn.initialized = True
        self._await_head(conn)

    def _await_head(self, conn: TConn) -> None:
        conn.sock.setblocking(False)
        received = conn.parser.unreader.buf.getvalue()
        if request_heads.is_complete(received, self._proxy_protocol(conn)):
            self._serve(conn)
        else:
            self._poll(conn, self._read_head)
            self._read_head(conn)

    def _read_head(self, conn: TConn) -> None:
        data = request_heads.receive(conn.sock)
        if data is None:
            return
        buffer = conn.parser.unreader.buf
        size = buffer.seek(0, os.SEEK_END) + len(data)
        buffer.write(data)
        if not data:
            self._drop(conn)
        elif request_heads.is_complete(buffer.getvalue(), self._proxy_protocol(conn), len(data)):
            self._serve(conn)
        elif size > request_heads.MOST_BYTES and b"\n" not in buffer.getvalue():
            self._serve(conn)  # gunicorn refuses such an address
        elif size > request_heads.MOST_BYTES:
            error = LimitRequestHeaders(f"more than {request_heads.MOST_BYTES} bytes")
            self.handle_error(None, conn.sock, conn.client, error)
            self._close(conn)

    def _proxy_protocol(self, conn: TConn) -> str:
        """What a proxy may say before the head; of a connection's first request only."""
        return "off" if conn.parser.req_count else str(self.cfg.proxy_protocol)

    def _serve(self, conn: TConn) -> None:
        self._unpoll(conn)
        self._served[conn.sock] = _Deadline(time.monotonic() + self._seconds_to_serve)
        super().enqueue_req(conn)

    def extend_deadline(self, sock: socket.socket) -> None:
        """Count `timeout` anew for the request on `sock`; from any thread."""
        deadline = self._served.get(sock)
        if deadline:
            deadline.at = time.monotonic() + self._seconds_to_serve

    def handle_request(self, req: Any, conn: TConn) -> bool:
        should_close = req.should_close

        def closes() -> bool:
            # a stopping worker closes streams too, or their clients would come back to it
            if not _is_read(req.body) or not self.alive:
                req.force_close()  # the client is told: what is read later must not change it
            return bool(should_close())

        # gunicorn asks this for the answer's head; to keep a connection it would first wait for the
        # rest of the body
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
            if isinstance(conn.sock, ssl.SSLSocket):
                with contextlib.suppress(ssl.SSLError):  # the client's part of it is not there yet
                    conn.sock.unwrap()
            conn.sock.shutdown(socket.SHUT_WR)
            self._poll(conn, self._discard)
        except (OSError, ValueError):  # ValueError: cut off at its deadline, it has no TLS any more
            self._drop(conn)

    def _discard(self, conn: TConn) -> None:
        if request_heads.receive(conn.sock) == b"":
            self._drop(conn)

    def _poll(self, conn: TConn, on_readable: Callable[[TConn], None]) -> None:
        self._polled[conn] = time.monotonic() + CLIENT_TIMEOUT_SECONDS

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
        self._log_cut_off.flush()
        now = time.monotonic()
        for conn in list(itertools.takewhile(lambda conn: self._polled[conn] < now, self._polled)):
            self._drop(conn)
        for sock in [sock for sock, deadline in self._served.items() if deadline.at < now]:
            del self._served[sock]
            with contextlib.suppress(OSError):
                self._log_cut_off(
                    "Cut off a request of %s after %d s", sock.getpeername(), self.cfg.timeout
                )
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
                sock.shutdown(socket.SHUT_RDWR)  # the thread's next call fails


def served_by(worker: Any) -> Service | None:
    """Give the service that a worker serves; None where loading the application failed."""
    extensions = getattr(getattr(worker, "wsgi", None), "extensions", {})
    service: Service | None = extensions.get(KEY)
    return service


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
