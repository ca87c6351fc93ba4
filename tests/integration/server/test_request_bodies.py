"""A connection outlives a request's body that was read to its end, and no other."""

from __future__ import annotations

import contextlib
import socket
import ssl
import sys
from http.client import HTTPResponse
from pathlib import Path

import pytest
import trustme

from tests.support.processes import ROOT, Program, free_port, running
from tests.support.waiting import eventually, is_cut_off

BODIES = """
from flask import Flask, Response, request

app = Flask(__name__)

@app.get("/")
def nothing():
    return ""

@app.post("/all")
def all_of_it():
    return str(len(request.get_data()))

@app.post("/half")
def half_of_it():
    return str(len(request.stream.read(10_000)))

@app.post("/none")
def none_of_it():
    return "0"

@app.post("/during")
def during_the_answer():
    read = request.stream.read
    return Response(str(len(read(size))) for size in (10_000, 100_000))

@app.post("/forgiving")
def what_there_is_of_it():
    try:
        return str(len(request.stream.read()))
    except Exception:
        return "less than all"

@app.post("/stubborn")
def all_of_it_at_the_second_try():
    try:
        return str(len(request.stream.read()))
    except Exception:
        return str(len(request.stream.read()))
"""
BODY = b"x" * 20_000
# more than comes with the head
LARGE_BODY = b"x" * 200_000
LAST = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def post(path: str, framed: bytes, fields: bytes = b"") -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: x\r\n".encode() + fields + framed


def length(body: bytes) -> bytes:
    return b"Content-Length: %d\r\n\r\n" % len(body) + body


def chunked(body: bytes, trailer: bytes = b"") -> bytes:
    chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
    return b"Transfer-Encoding: chunked\r\n\r\n" + chunk + b"0\r\n" + trailer + b"\r\n"


FRAMINGS = pytest.mark.parametrize("framed", [length, chunked])


def serving(folder: Path, *given: str) -> contextlib.AbstractContextManager[Program]:
    (folder / "bodies.py").write_text(BODIES)
    port = free_port()
    options = ["--bind", f"127.0.0.1:{port}", "--timeout", "3", *given]
    options += ["--keep-alive", "20", "--no-control-socket", "-k", "app.server.worker.Worker"]
    command = [sys.executable, "-m", "gunicorn", *options, "bodies:app"]
    return running(command, port, {"PYTHONPATH": str(ROOT)}, folder / "output", folder)


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """With one thread, so that who is answered shows that nobody holds it."""
    with serving(tmp_path_factory.mktemp("bodies"), "--threads", "1") as program:
        eventually(lambda: program.get("/"))
        yield program


def test_who_stops_in_the_middle_of_a_body_over_tls_is_cut_off_and_nobody_else(tmp_path):
    authority = trustme.CA()
    certificate, key = tmp_path / "certificate", tmp_path / "key"
    issued = authority.issue_cert("localhost")
    issued.cert_chain_pems[0].write_to_path(certificate)
    issued.private_key_pem.write_to_path(key)
    trusted = ssl.create_default_context()
    authority.configure_trust(trusted)

    def connect() -> ssl.SSLSocket | None:
        with contextlib.suppress(ConnectionRefusedError):
            client = socket.create_connection(("127.0.0.1", program.port), 10)
            return trusted.wrap_socket(client, server_hostname="localhost")
        return None

    with serving(tmp_path, "--certfile", str(certificate), "--keyfile", str(key)) as program:
        with eventually(connect) as half:
            (_, worker) = program.tree()
            half.sendall(post("/forgiving", b"Content-Length: 100\r\n\r\nhalf of it"))
            with contextlib.suppress(ConnectionError):
                assert half.recv(1000) == b""
        with connect() as other:
            other.sendall(LAST)
            assert other.recv(1000).startswith(b"HTTP/1.1 200 OK")
        assert program.tree()[1] == worker
        assert "Cut off a request" in program.output


@pytest.fixture
def client(program):
    with socket.create_connection(("127.0.0.1", program.port), timeout=20) as client:
        yield client


def answer(client: socket.socket) -> tuple[str | None, bytes]:
    """What the next answer says of the connection, and its body."""
    response = HTTPResponse(client)
    response.begin()
    return response.headers["Connection"], response.read()


def everything(client: socket.socket) -> bytes:
    """Until the server closes."""
    return b"".join(iter(lambda: client.recv(100_000), b""))


@pytest.mark.parametrize(
    ("request_", "read"),
    [
        pytest.param(post("/all", length(BODY)), b"20000", id="length"),
        pytest.param(post("/all", length(LARGE_BODY)), b"200000", id="large length"),
        pytest.param(post("/none", length(b"")), b"0", id="length of nothing"),
        pytest.param(post("/all", chunked(BODY)), b"20000", id="chunked"),
        pytest.param(post("/all", chunked(LARGE_BODY)), b"200000", id="large chunk"),
        pytest.param(post("/all", chunked(b"")), b"0", id="chunked nothing"),
        pytest.param(post("/all", chunked(BODY, b"A: b\r\n")), b"20000", id="with a trailer"),
    ],
)
def test_a_connection_is_kept_alive_after_a_body_that_was_read(client, request_, read):
    for _ in range(3):
        client.sendall(request_)
        assert answer(client) == ("keep-alive", read)


@FRAMINGS
@pytest.mark.parametrize("path", ["/half", "/none", "/during"])
def test_a_connection_is_closed_after_a_body_that_was_not_read(client, path, framed):
    client.sendall(post(path, framed(BODY)) + LAST)
    received = everything(client)
    assert b"\r\nConnection: close\r\n" in received
    assert received.count(b"HTTP/1.1 ") == 1


@FRAMINGS
@pytest.mark.parametrize("path", ["/half", "/none"])
def test_an_answer_does_not_wait_for_what_is_not_read(client, path, framed):
    client.settimeout(4)  # gunicorn would wait for five seconds
    client.sendall(post(path, framed(LARGE_BODY))[:15_000])
    assert b"\r\nConnection: close\r\n" in everything(client)


def test_a_connection_is_closed_after_a_body_that_makes_no_sense(client):
    client.sendall(post("/stubborn", b"Transfer-Encoding: chunked\r\n\r\nno size\r\n"))
    assert answer(client) == ("close", b"0")


@FRAMINGS
@pytest.mark.parametrize("body", [BODY, LARGE_BODY], ids=["small", "large"])
def test_the_request_after_a_body_is_answered_when_both_come_at_once(client, body, framed):
    client.sendall(post("/all", framed(body)) * 2 + LAST)
    assert everything(client).count(b" 200 OK\r\n") == 3


@FRAMINGS
@pytest.mark.parametrize("part", [1, 10, len(LAST) - 1])
def test_the_request_after_a_body_is_answered_when_only_a_part_of_it_came_with_it(
    program, client, part, framed
):
    client.sendall(post("/all", framed(BODY)) + LAST[:part])
    assert answer(client) == ("keep-alive", b"20000")
    assert program.get("/").ok
    client.sendall(LAST[part:])
    assert answer(client) == ("close", b"")


@pytest.mark.parametrize(
    ("path", "answered"), [("/all", ("keep-alive", b"20000")), ("/none", ("close", b"0"))]
)
def test_a_client_that_asks_whether_to_send_its_body_is_told_to(client, path, answered):
    head, _, body = post(path, length(BODY), b"Expect: 100-continue\r\n").partition(b"\r\n\r\n")
    client.sendall(head + b"\r\n\r\n")
    go_on = b"HTTP/1.1 100 Continue\r\n\r\n"
    assert client.recv(len(go_on), socket.MSG_WAITALL) == go_on
    client.sendall(body)
    assert answer(client) == answered


@pytest.mark.parametrize(
    ("framing", "dripping"),
    [
        pytest.param(b"Content-Length: 20000", b"", id="length, stops"),
        pytest.param(b"Content-Length: 20000", b"x", id="length, drips"),
        pytest.param(b"Transfer-Encoding: chunked", b"", id="chunked, stops"),
        pytest.param(b"Transfer-Encoding: chunked", b"1\r\nx\r\n", id="chunked, drips"),
    ],
)
def test_a_body_that_never_ends_is_cut_off_after_the_timeout(program, client, framing, dripping):
    pid = program.tree()[-1].pid
    client.sendall(post("/all", framing + b"\r\n\r\n"))
    client.settimeout(0.1)
    eventually(lambda: is_cut_off(client, dripping), within=8)
    assert program.get("/").ok
    assert program.tree()[-1].pid == pid
