from __future__ import annotations

import logging

from app import logs
from app.logs import Throttle


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
    assert lines[2:] == ["number 99 (97 like it left out)"]
    time.now = 2.0
    throttle.flush()
    assert len(lines) == 3


def test_a_line_held_back_is_superseded_by_a_newer_one():
    throttle, lines, time = throttled()
    for number in range(3):
        throttle("number %d", number)
    time.now = 1.0
    throttle("number %d", 3)
    assert lines[2:] == ["number 3 (1 like it left out)"]


def test_passes_few_lines_a_minute_of_the_kafka_client_on_and_none_of_its_tracebacks(caplog):
    caplog.set_level(logging.INFO)
    logs.configure("INFO", hide=str)
    client_log = logging.getLogger("kafka.conn")
    for number in range(1000):
        try:
            raise ConnectionError(number)
        except ConnectionError:
            client_log.exception("lost connection %d", number)
    lines = [record.getMessage() for record in caplog.records if record.name == "app.logs"]
    assert lines == [f"The Kafka client says: lost connection {number}" for number in (0, 1)]


def test_hides_secrets_in_lines_and_tracebacks(capsys, monkeypatch):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    logs.configure("INFO", hide=lambda text: text.replace("s3cret", "(hidden)"))
    try:
        raise ValueError("cannot do with s3cret")
    except ValueError:
        logging.getLogger("app.test").exception("the password is s3cret")
    shown = capsys.readouterr().err
    assert "the password is (hidden)" in shown
    assert "ValueError: cannot do with (hidden)" in shown
    assert "s3cret" not in shown
