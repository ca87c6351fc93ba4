"""Whatever some clients do or leave undone, the others are answered within a second."""

from __future__ import annotations

import contextlib
import resource
import socket
import threading
import time
from pathlib import Path

import psutil
import pytest
import requests

from dev.frozen import freeze
from tests.support.processes import assert_all_ended, gunicorn, running_on
from tests.support.waiting import eventually, is_cut_off

IDLE = b""
HALF_A_HEAD = b"GET /state HTTP/1.1\r\nHost: localhost\r\nX-Half: "
POST = b"POST /state HTTP/1.1\r\nHost: localhost\r\n"
HALF_A_BODY = POST + b"Content-Length: 1000000000\r\n\r\nhalf"
HALF_A_CHUNK = POST + b"Transfer-Encoding: chunked\r\n\r\nff\r\nhalf"
NEVER_CLOSES = b"GET /state HTTP/1.0\r\n\r\n"
REQUEST = b"GET /state HTTP/1.1\r\nHost: localhost\r\n\r\n"
MEGABYTE = 1_000_000
# more than the buffers of a connection take
LARGE_STATE = "x" * 8 * MEGABYTE
# of connections, in Linux' include/net/tcp_states.h: TIME_WAIT and LISTEN
GONE = {"06", "0A"}


@pytest.fixture(scope="module", autouse=True)
def open_files():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture
def serving(topic, tmp_path):
    @contextlib.contextmanager
    def start(*options, state="x", files="-S -n 1024"):
        topic.send_state(state, producer=topic.new_producer(**{"message.max.bytes": 10**8}))
        command = ["sh", "-c", f'ulimit {files}; exec "$@"', "sh", *gunicorn(*options)]
        with running_on(topic, command, tmp_path / "output") as program:
            program.comes_to(state)
            yield program

    return start


@pytest.fixture
def connect():
    """Open connections that send something and then nothing more, nor read or close."""
    with contextlib.ExitStack() as opened:

        def connect(program, sent: bytes, count: int = 1) -> list[socket.socket]:
            clients = []
            for _ in range(count):
                client = opened.enter_context(socket.socket())
                clients.append(client)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                client.settimeout(20)
                client.connect(("127.0.0.1", program.port))
                client.sendall(sent)
            return clients

        yield connect


@contextlib.contextmanager
def others_are_answered_within_a_second(program):
    """All through the block, and twenty times after it."""
    seconds = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            start = time.monotonic()
            with contextlib.suppress(requests.RequestException):
                assert program.get("/healthz").status_code == 200
            seconds.append(time.monotonic() - start)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
        asked = len(seconds)
        eventually(lambda: len(seconds) > asked + 20 or max(seconds, default=0) > 1)
    finally:
        done.set()
        thread.join()
    assert max(seconds) < 1


def worker(program) -> psutil.Process:
    return program.tree()[-1]


def kept(program) -> int:
    """How many connections it has, with those that are closed while the kernel sends the rest."""
    own = f":{program.port:04X}"
    # psutil would look at all that all processes have open, which takes a core
    _, *connections = Path("/proc/net/tcp").read_text().splitlines()
    fields = (connection.split() for connection in connections)
    return sum(at.endswith(own) and state not in GONE for _, at, _, state, *_ in fields)


def answer_to(client: socket.socket) -> bytes:
    """Everything until the server closes."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while data := client.recv(MEGABYTE):
            received += data
    return received


@pytest.mark.alone
@pytest.mark.parametrize(
    ("sent", "count"),
    [
        pytest.param(IDLE, 3000, id="idle"),
        pytest.param(HALF_A_HEAD, 3000, id="half a head"),
        # each is a request, and all those before one's own are answered first
        pytest.param(HALF_A_BODY, 200, id="half a body"),
        pytest.param(HALF_A_CHUNK, 200, id="half a chunk"),
        pytest.param(NEVER_CLOSES, 200, id="never closes"),
    ],
)
def test_answers_others_within_a_second_while_connections_are(serving, connect, sent, count):
    with (
        serving("--worker-connections", "1500") as program,
        others_are_answered_within_a_second(program),
    ):
        connect(program, sent, count)


@pytest.mark.alone
def test_holds_thousands_of_connections_and_not_for_long(serving, connect):
    with serving() as program:
        files = worker(program).num_fds()
        with others_are_answered_within_a_second(program):
            connect(program, NEVER_CLOSES, 100)
            connect(program, IDLE, 2000)
            connect(program, HALF_A_HEAD, 2000)
            eventually(lambda: worker(program).num_fds() > 4000)
        eventually(lambda: worker(program).num_fds() < files + 50, within=8)


def test_a_burst_of_connections_waits_for_a_worker_that_is_busy(serving, connect):
    with serving() as program:
        busy = worker(program)
        freeze(busy.pid)
        connect(program, IDLE, 4000)
        busy.resume()
        assert program.get("/healthz").status_code == 200


def test_a_head_that_drips_in_is_cut_off_too(serving, connect):
    with serving() as program:
        (client,) = connect(program, HALF_A_HEAD)
        client.settimeout(0.1)
        eventually(lambda: is_cut_off(client, b"x"), within=8)


def test_few_open_files_are_enough_to_answer(serving, connect):
    with serving(files="-n 300") as program:
        pid = worker(program).pid
        with others_are_answered_within_a_second(program):
            connect(program, IDLE, 500)
        assert worker(program).pid == pid


def test_connections_are_kept_alive_where_few_files_may_be_open(serving):
    with serving(files="-n 1024") as program:
        answer = requests.get(f"http://127.0.0.1:{program.port}/state", timeout=5)
        assert answer.headers["Connection"] == "keep-alive"


def test_answers_where_hardly_any_files_may_be_open(serving):
    with serving(files="-n 150") as program:
        assert program.get("/healthz").status_code == 200


@pytest.mark.alone
def test_answers_others_within_a_second_while_many_do_not_read(serving, connect):
    with serving(state=LARGE_STATE) as program:
        memory = worker(program).memory_info().rss
        with others_are_answered_within_a_second(program):
            connect(program, REQUEST, 60)
            eventually(lambda: worker(program).num_threads() > 60)
        assert worker(program).memory_info().rss - memory < 60 * MEGABYTE


@pytest.mark.parametrize(
    "state",
    [
        pytest.param("x" * MEGABYTE, id="the kernel holds the answer"),
        pytest.param(LARGE_STATE, id="a thread holds the answer"),
    ],
)
def test_who_does_not_read_is_cut_off_after_the_timeout(serving, connect, state):
    with serving("--threads", "3", "--timeout", "3", state=state) as program:
        pid = worker(program).pid
        connect(program, REQUEST, 3)
        eventually(lambda: kept(program) == 3)
        eventually(lambda: kept(program) == 0, within=10)
        assert program.get("/healthz").status_code == 200
        assert worker(program).pid == pid


def test_who_reads_in_drips_is_cut_off_after_the_timeout_too(serving, connect):
    with serving("--timeout", "3", state=LARGE_STATE) as program:
        (client,) = connect(program, REQUEST)

        def cut_off() -> bool:
            with contextlib.suppress(ConnectionError):
                client.recv(4096)
            return kept(program) == 0

        eventually(cut_off, within=6)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        pytest.param(b"GET /" + b"x" * MEGABYTE + b" HTTP/1.1\r\n\r\n", b"414", id="address"),
        pytest.param(b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 5000 + b"\r\n", b"431", id="fields"),
        pytest.param(b"GET / HTTP/1.1\r\nX: " + b"x" * MEGABYTE, b"431", id="field"),
        pytest.param(b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 20_000, b"431", id="endless"),
    ],
)
def test_refuses_an_enormous_head(serving, connect, head, status):
    with serving() as program:
        memory = worker(program).memory_info().rss
        (client,) = connect(program, head)
        assert client.recv(12) == b"HTTP/1.1 " + status
        for client in connect(program, head[: 60 * 1024], 100):
            client.close()
        assert worker(program).memory_info().rss - memory < 20 * MEGABYTE


@pytest.mark.parametrize("method", [b"GET", b"POST"])
@pytest.mark.parametrize("framing", [b"Content-Length: 1000000000", b"Transfer-Encoding: chunked"])
def test_an_enormous_body_is_answered_and_not_read(serving, connect, method, framing):
    with serving() as program:
        memory = worker(program).memory_info().rss
        (client,) = connect(program, method + b" /state HTTP/1.1\r\nHost: x\r\n" + framing)
        client.sendall(b"\r\n\r\n")
        assert b"\r\nConnection: close\r\n" in client.recv(MEGABYTE)
        with contextlib.suppress(ConnectionError):
            for _ in range(100):
                client.sendall(b"f4240\r\n" + b"x" * MEGABYTE + b"\r\n")
        assert worker(program).memory_info().rss - memory < 20 * MEGABYTE


def test_a_body_is_never_taken_for_a_request(serving, connect):
    with serving() as program:
        (client,) = connect(program, POST + b"Content-Length: 4\r\n\r\nbody" + REQUEST)
        assert answer_to(client).count(b"HTTP/1.1 ") == 1


def test_requests_sent_at_once_are_answered_in_turn(serving, connect):
    with serving() as program:
        (client,) = connect(program, REQUEST * 3 + NEVER_CLOSES)
        assert answer_to(client).count(b"200 OK") == 4


def test_a_stop_ends_with_thousands_of_connections_open(serving, connect):
    with serving(state=LARGE_STATE) as program:
        connect(program, IDLE, 1000)
        connect(program, HALF_A_HEAD, 1000)
        connect(program, HALF_A_BODY, 1000)
        connect(program, REQUEST, 20)
        eventually(lambda: worker(program).num_threads() > 20)
        processes = program.tree()
        program.process.terminate()
        program.process.wait(5)
        assert_all_ended(processes)
