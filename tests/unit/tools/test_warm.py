"""Programs that are started warm are the same as others, but for the time they take."""

from __future__ import annotations

import signal
import sys

import pytest

from tests.support.processes import ended, free_port, gunicorn, kafka_state, running
from tests.support.waiting import eventually


@pytest.mark.parametrize(
    "command",
    [
        [sys.executable, "producer.py", "--state", "nope"],
        [*kafka_state(), "check"],
        gunicorn("--check-config"),
    ],
    ids=["producer", "kafka-state", "gunicorn"],
)
def test_what_is_started_warm_says_and_ends_with_the_same(command, monkeypatch):
    settings = {"KAFKA_TOPIC": "t", "STATE_INITIAL": "nope"}
    warm = vars(ended(command, **settings))
    monkeypatch.setenv("COLD_STARTS", "1")
    assert warm == vars(ended(command, **settings))
    assert warm["returncode"] != 0


@pytest.mark.parametrize("cold", ["", "1"])
@pytest.mark.parametrize(("sent", "status"), [(signal.SIGTERM, 0), (signal.SIGKILL, -9)])
def test_what_is_started_tells_how_it_ended(tmp_path, monkeypatch, cold, sent, status):
    monkeypatch.setenv("COLD_STARTS", cold)
    port = free_port()
    settings = {"KAFKA_TOPIC": "t", "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", "PORT": str(port)}
    with running(gunicorn(), port, settings, tmp_path / "output") as program:
        eventually(lambda: program.get("/healthz"))
        assert program.process.poll() is None
        program.process.send_signal(sent)
        assert program.process.wait(10) == status
        assert program.process.returncode == status
