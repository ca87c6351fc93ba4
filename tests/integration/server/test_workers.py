"""Under gunicorn each worker follows on its own, from after its fork to its end."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import time
from pathlib import Path

import psutil
import pytest
import requests

from tests.support.asking import asking
from tests.support.processes import (
    ROOT,
    Program,
    assert_all_ended,
    copy_program,
    following,
    free_port,
    gunicorn,
    running,
)
from tests.support.waiting import eventually

FOLLOWING = re.compile(r"\[(\d+)\] \[INFO\] Following as (\S+):")

# a loader that is not imported before it may be
SLOW_TO_IMPORT = """
import pathlib, time

while not pathlib.Path("may_start").exists():
    time.sleep(0.01)

def load(message):
    return message.state
"""

# the worker is told to end when the first half of an answer was sent
ENDS_WHILE_IT_ANSWERS = """
import os, signal, threading

told, handle = threading.Event(), signal.getsignal(signal.SIGTERM)

def handle_and_tell(*signalled):
    handle(*signalled)
    told.set()

signal.signal(signal.SIGTERM, handle_and_tell)

def app(environ, start):
    start("200 OK", [("Content-Length", "2")])
    yield b"{"
    if environ["PATH_INFO"] == "/end":
        os.kill(os.getpid(), signal.SIGTERM)
        assert told.wait(10)
    yield b"}"
"""

KINDS = [
    pytest.param([], id="gthread"),
    pytest.param(["--preload"], id="gthread preloaded"),
    pytest.param(["-k", "sync", "--threads", "1"], id="sync"),
    pytest.param(["-k", "sync", "--threads", "1", "--preload"], id="sync preloaded"),
]


@pytest.fixture
def serve_with_gunicorn(topic, tmp_path):
    def start(*options: str, cwd: Path = ROOT, **environ: str):
        return following(topic, tmp_path / "output", *options, cwd=cwd, **environ)

    return start


def followers(program) -> dict[int, str]:
    """By process, the group that it follows as."""
    return {int(pid): group for pid, group in FOLLOWING.findall(program.output)}


@pytest.mark.parametrize("options", KINDS)
def test_each_worker_follows_on_its_own_and_after_its_fork(topic, serve_with_gunicorn, options):
    topic.send_state("before")
    with serve_with_gunicorn("--workers", "2", *options) as program:
        eventually(lambda: program.output.count("Initializing API") == 2)
        master, *workers = (process.pid for process in program.tree())
        assert set(followers(program)) == set(workers)
        assert len(set(followers(program).values())) == 2
        topic.send_state("after")
        eventually(lambda: program.output.count('State updated to: "after"') == 2)
        program.comes_to("after")
        assert program.get("/healthz").status_code == 200
        assert master not in followers(program)


@pytest.mark.parametrize("options", KINDS)
def test_workers_that_a_reload_brings_follow_too(topic, serve_with_gunicorn, options):
    topic.send_state("before")
    with serve_with_gunicorn(*options) as program:
        program.comes_to("before")
        old = followers(program)
        program.process.send_signal(signal.SIGHUP)
        eventually(lambda: len(followers(program)) == 2)
        eventually(lambda: {process.pid for process in program.tree()}.isdisjoint(old))
        topic.send_state("after")
        program.comes_to("after")


def test_a_reload_brings_the_code_that_is_on_disk(topic, serve_with_gunicorn, tmp_path):
    copy_program(tmp_path)
    with serve_with_gunicorn(cwd=tmp_path) as program:
        assert eventually(lambda: program.get("/")).json() == {"message": "Hello World"}
        views = tmp_path / "app" / "web" / "views.py"
        views.write_text(views.read_text().replace("Hello World", "Hello again, World"))
        program.process.send_signal(signal.SIGHUP)
        eventually(lambda: program.get("/").json() == {"message": "Hello again, World"})


@pytest.mark.apache_kafka
@pytest.mark.parametrize("options", KINDS)
def test_no_group_is_left_behind_by_a_clean_stop(topic, serve_with_gunicorn, groups, options):
    topic.send_state("before")

    with serve_with_gunicorn("--workers", "2", *options) as program:
        eventually(lambda: len(followers(program)) == 2)
        own = set(followers(program).values())
        eventually(lambda: own <= groups())
        program.process.terminate()
        program.process.wait(5)
        assert own.isdisjoint(groups())
        assert "Traceback" not in program.output


def session_of_each_worker(program, count: int) -> list[requests.Session]:
    """A connection that is kept alive stays with the worker that took it."""
    sessions = {}

    def have_all() -> bool:
        session = requests.Session()
        group = session.get(f"http://127.0.0.1:{program.port}/status").json()["group_id"]
        sessions.setdefault(group, session)
        return len(sessions) == count

    eventually(have_all)
    return list(sessions.values())


@pytest.mark.parametrize("workers", [2, 4])
def test_workers_agree_within_a_second_of_each_message(topic, serve_with_gunicorn, workers):
    topic.send_state("before")
    with serve_with_gunicorn("--workers", str(workers), "--keep-alive", "60") as program:
        program.comes_to("before")
        sessions = session_of_each_worker(program, workers)
        for number in range(10):
            topic.send_state(number)
            sent = time.monotonic()
            for session in sessions:
                eventually(
                    lambda session=session, number=number: (
                        session.get(f"http://127.0.0.1:{program.port}/state").json()
                        == {"state": number}
                    ),
                    within=sent + 1 - time.monotonic(),
                )


def test_a_reload_under_load_fails_no_request(topic, serve_with_gunicorn):
    topic.send_state("the state")
    with serve_with_gunicorn() as program:
        program.comes_to("the state")
        with asking(program) as answers:
            for reloads in (1, 2):
                old = followers(program)
                program.process.send_signal(signal.SIGHUP)
                eventually(lambda n=reloads: len(followers(program)) == n + 1)
                eventually(lambda old=old: {p.pid for p in program.tree()}.isdisjoint(old))
        assert len(answers) > 20
        assert {answer.text for answer in answers} == {'{"state":"the state"}'}


def running_bare(folder: Path) -> contextlib.AbstractContextManager[Program]:
    """Run the application of bare.py by this worker class, and without this configuration."""
    command = [*gunicorn("-k", "app.server.worker.Worker")[:-1], "bare:app"]
    port = free_port()
    return running(command, port, {"PORT": str(port)}, folder / "output", cwd=folder)


def test_the_worker_class_serves_any_application_without_this_packages_configuration(tmp_path):
    """As in the benchmark, for what the service costs on top of it."""
    (tmp_path / "bare.py").write_text(
        "def app(environ, start):\n    start('200 OK', [])\n    return [b'{}']\n"
    )
    with running_bare(tmp_path) as program:
        assert eventually(lambda: program.get("/")).text == "{}"


def test_a_connection_that_is_told_to_be_kept_is_kept_though_the_worker_is_told_to_end(tmp_path):
    (tmp_path / "bare.py").write_text(ENDS_WHILE_IT_ANSWERS)
    with running_bare(tmp_path) as program:
        eventually(lambda: program.get("/"))
        client = http.client.HTTPConnection("127.0.0.1", program.port, timeout=10)
        said = []
        for path in ("/end", "/"):
            client.request("POST", path)
            answer = client.getresponse()
            said.append((answer.read(), answer.headers["Connection"]))
        assert said == [(b"{}", "keep-alive"), (b"{}", "close")]


def test_old_workers_follow_and_answer_until_the_new_ones_of_a_reload_are_ready(
    topic, serve_with_gunicorn, tmp_path
):
    copy_program(tmp_path)
    (tmp_path / "slow.py").write_text(SLOW_TO_IMPORT)
    may_start = tmp_path / "may_start"
    may_start.touch()
    with serve_with_gunicorn(cwd=tmp_path, STATE_LOADER="slow.load") as program:
        topic.send_state("before")
        program.comes_to("before")
        old = followers(program)
        may_start.unlink()
        program.process.send_signal(signal.SIGHUP)
        eventually(lambda: len(program.tree()) == 3)
        topic.send_state("meanwhile")
        program.comes_to("meanwhile")
        assert followers(program) == old
        may_start.touch()
        eventually(lambda: {process.pid for process in program.tree()}.isdisjoint(old))
        assert "Traceback" not in program.output


def test_a_stop_under_load_finishes_the_answers_it_has_begun(topic, serve_with_gunicorn):
    state = "x" * 8_000_000  # more than the kernel takes off a thread's hands
    topic.send_state(state, producer=topic.new_producer(**{"message.max.bytes": 10_000_000}))
    with serve_with_gunicorn() as program, contextlib.ExitStack() as opened:
        program.comes_to(state)
        processes = program.tree()
        clients = []
        for _ in range(20):
            client = socket.create_connection(("127.0.0.1", program.port), 10)
            clients.append(opened.enter_context(client))
            client.sendall(b"GET /state HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert client.recv(15) == b"HTTP/1.1 200 OK"
        program.process.terminate()
        eventually(lambda: "Handling signal: term" in program.output)
        for client in clients:
            answer = client.makefile("rb").read()
            assert answer.endswith(b'xx"}')
            assert len(answer) > len(state)
        program.process.wait(5)
        assert_all_ended(processes)


def test_a_killed_worker_is_replaced_by_one_that_follows(topic, serve_with_gunicorn):
    topic.send_state("before")
    with serve_with_gunicorn() as program:
        program.comes_to("before")
        (pid,) = followers(program)
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: len(followers(program)) == 2)
        topic.send_state("after")
        program.comes_to("after")


def clients_of(worker: psutil.Process, program) -> int:
    return sum(
        connection.status == psutil.CONN_ESTABLISHED and connection.laddr.port == program.port
        for connection in worker.net_connections("tcp")
    )


@pytest.mark.alone
def test_workers_share_the_clients_that_come_at_once(topic, serve_with_gunicorn):
    topic.send_state("s")
    with serve_with_gunicorn("--workers", "2") as program:
        eventually(lambda: program.output.count("Initializing API") == 2)
        workers = psutil.Process(program.process.pid).children()

        def counts() -> list[int]:
            return [clients_of(worker, program) for worker in workers]

        taken = [0, 0]
        for _ in range(5):
            with contextlib.ExitStack() as batch:
                for _ in range(16):
                    batch.enter_context(socket.create_connection(("127.0.0.1", program.port), 5))
                eventually(lambda: sum(counts()) == 16)
                taken = [sum(pair) for pair in zip(taken, counts(), strict=True)]
            eventually(lambda: sum(counts()) == 0)
        assert min(taken) >= 20


def test_clients_that_are_left_to_a_worker_that_hangs_are_answered_by_another(
    topic, serve_with_gunicorn
):
    topic.send_state("s")
    with serve_with_gunicorn("--workers", "2") as program, contextlib.ExitStack() as opened:
        eventually(lambda: program.output.count("Initializing API") == 2)
        hanging, _ = psutil.Process(program.process.pid).children()
        hanging.suspend()
        opened.callback(hanging.resume)
        eventually(lambda: hanging.status() == psutil.STATUS_STOPPED)
        for _ in range(30):
            client = opened.enter_context(socket.create_connection(("127.0.0.1", program.port), 5))
            client.sendall(b"GET /state HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(1000).startswith(b"HTTP/1.1 200 ")
