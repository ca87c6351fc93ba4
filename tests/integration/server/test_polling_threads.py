"""Which thread answers: the one that polls, unless it would keep others waiting."""

from __future__ import annotations

import itertools
import sys
import threading

import pytest
import requests

from tests.support.processes import ROOT, Program, free_port, running
from tests.support.waiting import eventually

APP = """
import threading

from flask import Flask

app = Flask(__name__)
enough = threading.Event()

@app.get("/")
def thread():
    return str(threading.get_ident())

@app.get("/waits")
def waits():
    return str(enough.wait(20))

@app.get("/computes")
def computes():
    while not enough.is_set():
        pass
    return "True"

@app.get("/enough")
def say_that_it_is_enough():
    enough.set()
    return ""
"""


@pytest.fixture
def program(tmp_path):
    (tmp_path / "threads.py").write_text(APP)
    port = free_port()
    options = ["--bind", f"127.0.0.1:{port}", "--threads", "10", "--keep-alive", "20"]
    options += ["--no-control-socket", "-k", "app.server.worker.Worker"]
    command = [sys.executable, "-m", "gunicorn", *options, "threads:app"]
    environ = {"PYTHONPATH": str(ROOT)}
    with running(command, port, environ, tmp_path / "output", tmp_path) as program:
        eventually(lambda: program.get("/"))
        yield program


def ask(program: Program, path: str, session: requests.Session | None = None) -> str:
    url = f"http://127.0.0.1:{program.port}{path}"
    return (session or requests.Session()).get(url, timeout=20).text


def test_plain_requests_are_answered_by_the_thread_that_polls(program):
    sessions = [requests.Session() for _ in range(5)]
    by = [ask(program, "/", session) for session in sessions * 20]
    # another polls from then on where one had no core for 10 ms
    changes = sum(before != after for before, after in itertools.pairwise(by))
    assert changes < 20


@pytest.mark.parametrize("view", ["/waits", "/computes"])
def test_a_view_that_takes_long_and_says_nothing_of_it_keeps_nobody_waiting(program, view):
    polled = ask(program, "/")
    said: list[str] = []
    asking = threading.Thread(target=lambda: said.append(ask(program, view)))
    asking.start()
    eventually(lambda: ask(program, "/") != polled)
    assert said == []
    ask(program, "/enough")
    asking.join(20)
    assert said == ["True"]


def test_as_many_as_there_are_threads_are_answered_at_once(program):
    asking = [threading.Thread(target=ask, args=[program, "/waits"]) for _ in range(9)]
    for thread in asking:
        thread.start()
    # by the last thread that is left
    eventually(lambda: program.tree()[1].num_threads() >= 11)
    ask(program, "/enough")
    for thread in asking:
        thread.join(20)
    assert ask(program, "/")
