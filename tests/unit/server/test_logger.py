"""A line of the access log, against the one that gunicorn would write."""

from __future__ import annotations

import io
from datetime import timedelta
from types import SimpleNamespace

import pytest
from gunicorn.config import Config

from app.server.logger import ACCESS_FORMAT, GunicornLogger

TOKEN = "token-of-many-letters"


@pytest.fixture
def logger(monkeypatch):
    monkeypatch.setenv("KAFKA_TOPIC", "t")
    monkeypatch.setenv("API_TOKEN", TOKEN)

    def build(access_format: str = ACCESS_FORMAT) -> GunicornLogger:
        cfg = Config()
        cfg.set("accesslog", "-")
        cfg.set("access_log_format", access_format)
        logger = GunicornLogger(cfg)
        own = [it for it in logger.access_log.handlers if hasattr(it, "_gunicorn")]  # not pytest's
        monkeypatch.setattr(logger.access_log, "handlers", own)
        return logger

    return build


def written(logger: GunicornLogger, **environ: str) -> str:
    """What is written of a request that was answered."""
    (handler,) = logger.access_log.handlers
    handler.stream = io.StringIO()
    asked = {
        "REMOTE_ADDR": "127.0.0.1",
        "REQUEST_METHOD": "GET",
        "RAW_URI": "/state",
        "PATH_INFO": "/state",
        "SERVER_PROTOCOL": "HTTP/1.1",
        **environ,
    }
    answered = SimpleNamespace(status="200 OK", sent=12, headers=[])
    asked_with = SimpleNamespace(headers=[])
    logger.access(answered, asked_with, asked, timedelta(seconds=1, microseconds=2003))
    return handler.stream.getvalue()


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"HTTP_USER_AGENT": "curl/8"},
        {"HTTP_USER_AGENT": 'a "quoted" \x1b[31m one\u2028'},
        {"RAW_URI": f"/state?token={TOKEN}"},
        {"RAW_URI": '/state?"'},
    ],
)
def test_a_line_is_that_of_gunicorn(logger, monkeypatch, environ):
    own = logger()
    line = written(own, **environ)
    monkeypatch.setattr(GunicornLogger, "_only_handler", lambda self: None)
    same_second = line[: line.index("]")]
    assert written(own, **environ)[len(same_second) :] == line[len(same_second) :]
    assert '"GET /state' in line
    assert line.count("\n") == 1
    assert TOKEN not in line


def test_a_format_of_ones_own_is_heeded(logger):
    assert written(logger("%(m)s only")).endswith("] GET only\n")


def test_a_probe_is_not_logged(logger):
    assert written(logger(), PATH_INFO="/healthz") == ""


def test_lines_that_are_held_are_written_together_and_in_their_order(logger):
    log = logger()
    log.hold_access_lines()
    assert [written(log, RAW_URI=f"/{n}") for n in range(3)] == [""] * 3
    (handler,) = log.access_log.handlers
    log.write_held()
    log.write_held()
    lines = handler.stream.getvalue().splitlines()
    assert [line.split()[7] for line in lines] == ["/0", "/1", "/2"]
