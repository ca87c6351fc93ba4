"""The HTTP face, as tools see it that know nothing of it but its standards."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
from datetime import datetime

import pytest
import requests

from tests.support.processes import Program
from tests.support.waiting import eventually

SEATS = 20
BEYOND = 200
WAIT_SECONDS = 60


@pytest.fixture
def program(serving):
    with serving(LOG_FORMAT="json", API_TOKEN="") as program:
        program.comes_to(0)
        yield program


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_curl_gets_a_state_once(topic, program, tmp_path):
    def curl(*options: str) -> tuple[str, str]:
        answer = subprocess.run(
            ["curl", "-sS", "-w", "%{stderr}%{http_code}", *options],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        return answer.stderr, answer.stdout

    url = f"http://127.0.0.1:{program.port}/state"
    compare = ("--etag-save", tmp_path / "etag", "--etag-compare", tmp_path / "etag", url)
    topic.send_state("same")
    program.comes_to("same")
    assert curl(*compare) == ("200", '{"state":"same"}')
    assert curl(*compare) == ("304", "")
    offset = program.get().headers["X-State-Offset"]
    topic.send_state("same")
    eventually(lambda: program.get().headers["X-State-Offset"] != offset)
    assert curl(*compare) == ("200", '{"state":"same"}')
    status, head = curl("-I", url)
    assert status == "200"
    assert "ETag: " in head
    assert curl("-I", f"{url}/stream")[0] == "200"


@pytest.mark.alone
def test_clients_beyond_those_who_may_wait_do_not_slow_the_others(topic, serving):
    with serving(STATE_MAX_WAITING=str(SEATS)) as program:
        program.comes_to(0)
        streams = [ask_for_a_stream(program) for _ in range(SEATS)]
        answers: list[int] = []
        done = threading.Event()
        crowd = [
            threading.Thread(target=ask_again_and_again, args=(program, number, answers, done))
            for number in range(BEYOND)
        ]
        for client in crowd:
            client.start()
        try:
            eventually(lambda: len(answers) > BEYOND)
            for number in range(20):
                answer = requests.get(
                    f"http://127.0.0.1:{program.port}/state", timeout=WAIT_SECONDS / 10
                )
                assert answer.status_code == 200, number
                assert program.get("/healthz").status_code == 200
        finally:
            done.set()
            for client in crowd:
                client.join()
        assert set(answers) == {503}
        for stream in streams:
            stream.close()


def ask_for_a_stream(program: Program) -> socket.socket:
    stream = socket.create_connection(("127.0.0.1", program.port), timeout=20)
    stream.sendall(b"GET /state/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert stream.recv(100).startswith(b"HTTP/1.1 200 ")
    return stream


def ask_again_and_again(
    program: Program, number: int, answers: list[int], done: threading.Event
) -> None:
    path = "/state/stream" if number % 2 else "/state?min_offset=0:99"
    url = f"http://127.0.0.1:{program.port}{path}"
    with requests.Session() as session:
        while not done.wait(0.5):
            with session.get(
                url, headers={"Prefer": f"wait={WAIT_SECONDS}"}, stream=True, timeout=WAIT_SECONDS
            ) as answer:
                answers.append(answer.status_code)


def test_every_line_of_the_log_is_a_json_object_if_it_is_to_be(topic, program):
    for path in ("/state?a=b", "/nowhere", "/healthz", "/readyz"):
        program.get(path)
    script = program.get("/static/page.js").content
    program.process.terminate()
    assert program.process.wait(5) == 0
    lines = [json.loads(line) for line in program.output.splitlines()]
    for line in lines:
        assert {"timestamp", "level", "pid", "logger", "message"} <= line.keys()
        assert datetime.fromisoformat(line["timestamp"]).tzinfo
    messages = " ".join(line["message"] for line in lines)
    for said in ("Listening at", "Initializing API", "Shutting down"):
        assert said in messages
    requests_logged = {line["path"]: line for line in lines if line["logger"] == "gunicorn.access"}
    assert requests_logged.keys() == {"/state", "/nowhere", "/static/page.js"}
    assert requests_logged["/static/page.js"]["bytes"] == len(script) > 0
    (line,) = [line for line in lines if line.get("query") == "a=b"]
    assert (line["client"], line["method"], line["path"]) == ("127.0.0.1", "GET", "/state")
    assert (line["status"], line["bytes"]) == (200, len('{"state":0}'))
    assert line["seconds"] >= 0


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_request_is_logged_without_secrets_and_without_what_a_terminal_obeys(serving, log_format):
    with serving(API_TOKEN="s3cret-token-of-many-letters", LOG_FORMAT=log_format) as program:
        eventually(lambda: program.get("/healthz"))
        url = f"http://127.0.0.1:{program.port}/state?token=s3cret-token-of-many-letters"
        with socket.create_connection(("127.0.0.1", program.port), timeout=20) as client:
            client.sendall(
                b"GET /state?token=s3cret-token-of-many-letters HTTP/1.1\r\nHost: localhost\r\n"
                b"User-Agent: red\x9b31m\r\nConnection: close\r\n\r\n"
            )
            assert client.recv(1000)
        eventually(lambda: "token=(hidden)" in program.output)
        assert r"red\u009b31m" in program.output
        assert "s3cret-token-of-many-letters" not in program.output
        assert "/healthz" not in program.output
        assert requests.get(url, timeout=5).status_code == 401
