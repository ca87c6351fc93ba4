"""Servers on loopback that a model can be fetched from, well-behaved and not."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = bytes | tuple[int, Mapping[str, str], bytes]


class Server(ThreadingHTTPServer):
    """Answers GET of the paths that `answers` has; remembers what it was asked."""

    def __init__(self, answers: Mapping[str, Answer], tls: ssl.SSLContext | None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers = dict(answers)
        self.requests: list[tuple[str, str]] = []
        self.headers: list[Mapping[str, str]] = []
        self._tls = tls
        self.uri = f"{'https' if tls else 'http'}://127.0.0.1:{self.server_port}"

    def finish_request(self, request: Any, client_address: Any) -> None:
        if self._tls:
            with suppress(OSError):  # the client does not trust it
                request = self._tls.wrap_socket(request, server_side=True)
                super().finish_request(request, client_address)
                request.close()
        else:
            super().finish_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        self.server.requests.append((self.command, self.path))
        self.server.headers.append(dict(self.headers.items()))
        answer = self.server.answers.get(self.path.partition("?")[0], (404, {}, b""))
        status, headers, body = (200, {}, answer) if isinstance(answer, bytes) else answer
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = _answer

    def log_message(self, *args: Any) -> None:
        pass


@contextmanager
def serving(
    answers: Mapping[str, Answer] | None = None, tls: ssl.SSLContext | None = None
) -> Iterator[Server]:
    with Server(answers or {}, tls) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class Connection:
    """One that `speaking` has accepted; `is_over` is set at the end of the test."""

    def __init__(self, sock: socket.socket, is_over: threading.Event) -> None:
        self._sock = sock
        self._is_over = is_over

    def send(self, data: bytes) -> None:
        self._sock.sendall(data)

    def drip(self, data: bytes) -> None:
        """Send it again and again, slowly."""
        while not self._is_over.wait(0.02):
            self.send(data)

    def flood(self, data: bytes) -> None:
        """Send it again and again, as fast as it can."""
        while not self._is_over.is_set():
            self.send(data)

    def wait_until_closed(self) -> None:
        """By the client."""
        while self._sock.recv(65536):
            pass

    def reset(self) -> None:
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self._sock.close()


@contextmanager
def speaking(talk: Callable[[Connection], None]) -> Iterator[str]:
    """The URI of a server that reads the head of a request and then does what `talk` does."""
    is_over = threading.Event()
    threads: list[threading.Thread] = []

    def converse(sock: socket.socket) -> None:
        with sock, suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                received = sock.recv(65536)
                if not received:
                    return  # it gave up before it had asked
                head += received
            talk(Connection(sock, is_over))

    def accept() -> None:
        while True:
            try:
                sock, _ = server.accept()
            except OSError:
                return
            sock.settimeout(20)
            threads.append(threading.Thread(target=converse, args=[sock]))
            threads[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
        finally:
            is_over.set()
            server.shutdown(socket.SHUT_RDWR)
            for thread in [accepting, *threads]:
                thread.join()
