from __future__ import annotations

import json
import logging
import os
from datetime import datetime

import pytest

from app import logs
from app.following.event_log import EventLog
from app.logs import Throttle
from app.settings import Settings
from app.settings.security import SecuritySettings

# JSON and Python write it otherwise
SECRET = 's3cret\xe9"'


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def throttled():
    lines: list[str] = []
    time = Time()
    throttle = Throttle(lambda line, *args: lines.append(line % args), 2, 1.0, time)
    return throttle, lines, time


def test_lets_a_few_lines_through_in_each_period():
    throttle, lines, time = throttled()
    for number in range(4):
        time.now = number
        throttle("first %d", number)
        throttle("second %d", number)
    assert len(lines) == 8


def test_counts_what_it_leaves_out_and_logs_the_last_of_it_once_there_is_room():
    throttle, lines, time = throttled()
    for number in range(100):
        throttle("number %d", number)
    throttle.flush()
    assert lines == ["number 0", "number 1"]
    time.now = 1.0
    throttle.flush()
    assert lines[2:] == ["number 99 (and 97 more like it)"]
    time.now = 2.0
    throttle.flush()
    assert len(lines) == 3


def test_a_line_held_back_is_superseded_by_a_newer_one():
    throttle, lines, time = throttled()
    for number in range(3):
        throttle("number %d", number)
    time.now = 1.0
    throttle("number %d", 3)
    assert lines[2:] == ["number 3 (and 1 more like it)"]


def test_passes_few_lines_a_minute_of_the_kafka_client_on_and_none_of_its_tracebacks(caplog):
    caplog.set_level(logging.INFO)
    logs.configure(Settings(topic="t"))
    client_log = logging.getLogger("kafka.conn")
    for number in range(1000):
        try:
            raise ConnectionError(number)
        except ConnectionError:
            client_log.exception("lost connection %d", number)
    lines = [record.getMessage() for record in caplog.records if record.name == "app.logs"]
    assert lines == [f"The Kafka client says: lost connection {number}" for number in (0, 1)]


def test_the_last_line_of_the_kafka_client_is_logged_too_once_there_is_room(caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    time = Time()
    handler = logs.ClientLog("The Kafka client", clock=lambda: time.now)
    monkeypatch.setattr(logging.getLogger("kafka"), "handlers", [handler])
    for number in range(3):
        logging.getLogger("kafka.conn").error("lost connection %d", number)
    time.now = 61.0
    EventLog("t").flush()
    assert caplog.messages[-1] == "The Kafka client says: lost connection 2"


def logged(monkeypatch, capsys, *args, **settings) -> str:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    logs.configure(Settings(topic="t", **settings))
    try:
        raise ValueError(f"cannot do with {SECRET}")
    except ValueError:
        logging.getLogger("app.test").exception(*args)
    return capsys.readouterr().err


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_hides_secrets_in_lines_and_tracebacks(monkeypatch, capsys, log_format):
    shown = logged(
        monkeypatch,
        capsys,
        "it is %s",
        SECRET,
        log_format=log_format,
        security=SecuritySettings(sasl_password=SECRET),
    )
    assert "it is (hidden)" in shown
    assert "ValueError: cannot do with (hidden)" in shown
    assert "s3cret" not in shown


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_topic_that_is_like_a_secret_does_not_tell_it(monkeypatch, capsys, log_format):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    monkeypatch.setattr(logging.getLogger(), "level", logging.INFO)
    security = SecuritySettings(sasl_password="password")
    given = Settings(topic="password-topic", security=security, log_format=log_format)
    logs.configure(given)
    logging.getLogger("app.test").info("Following: %s", given)
    shown = capsys.readouterr().err
    assert "topic=password-topic" in shown
    assert "hidden" not in shown


def test_writes_a_json_object_a_line_if_asked_to(monkeypatch, capsys):
    shown = logged(monkeypatch, capsys, "two\nlines", log_format="json")
    assert shown.count("\n") == 1
    line = json.loads(shown)
    assert line["message"] == "two\nlines"
    assert line["level"] == "ERROR"
    assert line["logger"] == "app.test"
    assert line["pid"] == os.getpid()
    assert datetime.fromisoformat(line["timestamp"]).tzinfo
    assert "ValueError" in line["exc_info"]


def test_shows_control_characters_and_does_not_send_them_to_a_terminal(monkeypatch, capsys):
    shown = logged(monkeypatch, capsys, "red: \x1b[31m, or \x9b31m")
    assert r"red: \u001b[31m, or \u009b31m" in shown


def test_control_characters_leave_json_what_it_is(monkeypatch, capsys):
    shown = logged(monkeypatch, capsys, "\x1b \x7f \x9b", log_format="json")
    assert json.loads(shown)["message"] == "\x1b \x7f \x9b"
    assert "\x9b" not in shown


@pytest.mark.parametrize(
    "logger", ["s3fs", "aiobotocore.endpoint", "botocore.auth", "gcsfs", "urllib3.connectionpool"]
)
def test_what_requests_are_signed_with_is_not_logged(logger):
    logs.configure(Settings(topic="t", log_level="DEBUG"))
    assert not logging.getLogger(logger).isEnabledFor(logging.DEBUG)
