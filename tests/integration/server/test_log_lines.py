"""What is logged when something goes wrong, and what of it is a secret."""

from __future__ import annotations

import json
import socket
from datetime import datetime
from urllib.parse import quote

import pytest

from tests.support.processes import Program, copy_program, following, gunicorn, running_on
from tests.support.waiting import eventually

# with characters that are percent-encoded in an address
TOKEN = "sec+ret/of/many/letters=="


@pytest.fixture
def failing(tmp_path):
    """A copy of the program whose greeting is an error that nobody thought of."""
    copy_program(tmp_path)
    views = tmp_path / "app" / "web" / "views.py"
    views.write_text(views.read_text().replace('"""A greeting', 'raise KeyError("what?")  # """'))
    return tmp_path


def send(program: Program, *lines: bytes) -> None:
    with socket.create_connection(("127.0.0.1", program.port), 5) as client:
        client.sendall(b"\r\n".join((*lines, b"Host: x", b"", b"")))
        assert client.recv(12).startswith(b"HTTP/1.1 ")


def test_what_goes_wrong_is_a_json_object_too(topic, failing):
    topic.send_state("x")
    with following(topic, failing / "output", cwd=failing, LOG_FORMAT="json") as program:
        program.comes_to("x")
        topic.send(b"\xff")
        eventually(lambda: "Skipped an invalid message" in program.output)
        assert program.get("/").status_code == 500
        send(program, b"GET /%C2%9B%7F%00 HTTP/1.1", b"User-Agent: \x9b\x85")
        send(program, b"GET /\x1b\x85 HTTP/1.1")
        send(program, b"GET / HTTP/1.1", b"User-Agent: \x1b")
        program.process.terminate()
        program.process.wait(5)
        lines = [json.loads(line) for line in program.output.splitlines()]
    for line in lines:
        assert {"timestamp", "level", "pid", "logger", "message"} <= line.keys()
        assert datetime.fromisoformat(line["timestamp"]).tzinfo
        assert isinstance(line["pid"], int)
    (failure,) = [line for line in lines if "KeyError" in line.get("exc_info", "")]
    assert failure["level"] == "ERROR"
    assert sum("Invalid" in line["message"] for line in lines) == 2
    assert lines[-1]["message"].startswith("Shutting down")


def test_the_first_message_is_an_update_too_and_says_where_it_was(topic, serving):
    topic.send_state(77)
    with serving() as program:
        program.comes_to(77)
        topic.send(b"junk")
        eventually(lambda: "Skipped an invalid message" in program.output)
        told = [line.partition("[INFO] ")[2] for line in program.told]
    first = told.index("Initializing API with data from msg: state 77 (partition 0, offset 0)")
    assert told[first + 1] == "State updated to: 77 (partition 0, offset 0)"
    assert program.told[-1].endswith(" (partition 0, offset 1)")


def test_where_a_message_was_are_fields_in_json(topic, serving):
    topic.send_state(77)
    with serving(LOG_FORMAT="json") as program:
        program.comes_to(77)
        topic.send_state(78)
        eventually(lambda: "State updated to: 78" in program.output)
        lines = [json.loads(line) for line in program.told]
    updates = [line for line in lines if line["message"].startswith("State updated to")]
    assert [(u["message"], u["partition"], u["offset"]) for u in updates] == [
        ("State updated to: 77", 0, 0),
        ("State updated to: 78", 0, 1),
    ]


def test_a_name_that_is_like_a_known_one_is_asked_about_once(serving):
    with serving("--workers", "2", KAFKA_BROKERS="elsewhere:9092") as program:
        eventually(lambda: program.output.count("Following as") == 2)
        asked = "KAFKA_BROKERS is not known and has no effect: did you mean KAFKA_BOOTSTRAP_SERVERS"
        assert program.output.count(asked) == 1


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize("encode", [str, lambda token: quote(token, safe="")])
def test_a_token_in_an_address_is_hidden(serving, log_format, encode):
    token = encode(TOKEN)
    with serving(LOG_FORMAT=log_format, API_TOKEN=TOKEN) as program:
        eventually(lambda: program.get("/healthz"))
        send(program, f"GET /status?token={token}&asked HTTP/1.1".encode())
        eventually(lambda: "&asked" in program.output)
        assert token not in program.output
        assert "token=(hidden)&asked" in program.output


def test_a_log_that_nobody_reads_keeps_the_probes_from_no_answer(topic, tmp_path):
    topic.send_state("x")
    command = ["sh", "-c", '"$@" | sleep 100', "sh", *gunicorn()]
    with running_on(topic, command, tmp_path / "output") as program:
        program.comes_to("x")
        for _ in range(2000):
            with socket.create_connection(("127.0.0.1", program.port), 1) as client:
                client.sendall(b"GET /state HTTP/1.0\r\n\r\n")
                try:
                    client.recv(1000)
                except TimeoutError:
                    break  # its line is not written
        for _ in range(10):
            assert program.get("/healthz").status_code == 200
