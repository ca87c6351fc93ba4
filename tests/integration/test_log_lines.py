"""What is logged when something goes wrong, and what of it is a secret."""

from __future__ import annotations

import json
import socket
from datetime import datetime
from urllib.parse import quote

import pytest

from tests.processes import Program, copy_program, following
from tests.waiting import eventually

# with characters that are percent-encoded in an address
TOKEN = "sec+ret/of/many/letters=="


@pytest.fixture
def failing(tmp_path):
    """A copy of the program whose greeting is an error that nobody thought of."""
    copy_program(tmp_path)
    views = tmp_path / "app" / "views.py"
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
