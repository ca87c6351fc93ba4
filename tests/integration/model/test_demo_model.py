"""`make demo-model` as a person uses it, but for its installation: see what it says, or Ctrl-C."""

from __future__ import annotations

import os
import re
import signal
import sys

import pytest

from tests.support.clients import IS_KAFKA_PYTHON_3
from tests.support.processes import Program, assert_all_ended, running
from tests.support.waiting import eventually
from tests.support.warm import DEMO, ONE_THREAD

SECONDS = 60
STOP_SECONDS = 10

pytestmark = [
    # what they share is imported for a second of a core
    pytest.mark.xdist_group("demo"),
    pytest.mark.skipif(
        IS_KAFKA_PYTHON_3, reason="the embedded broker does not answer kafka-python 3"
    ),
]

CLOSING_LINE = re.compile(
    r"(?P<requests>\d+) requests, 0 failed; versions 1, then 2; "
    r"accuracy (?P<before>[\d.]+), then (?P<after>[\d.]+); "
    r"(?P=requests) answers are what scikit-learn predicts with the version they name"
)


@pytest.fixture
def demo(tmp_path):
    # threads that wait for each other would take the cores of other tests
    with running([sys.executable, *DEMO], 0, ONE_THREAD, tmp_path / "output") as program:
        yield program


def assert_leaves_nothing_behind(program: Program, processes, folder) -> None:
    assert_all_ended(processes)
    assert [path.name for path in folder.iterdir()] == ["output"]
    assert "Traceback" not in program.output


def test_swaps_a_model_while_a_client_keeps_asking(demo, tmp_path):
    eventually(lambda: "Sent version 2" in demo.output, SECONDS)
    processes = demo.tree()
    assert demo.process.wait(SECONDS) == 0, demo.output
    said = CLOSING_LINE.fullmatch(demo.output.splitlines()[-1])
    assert said, demo.output
    assert int(said["requests"]) >= 1000
    assert float(said["before"]) < float(said["after"])
    assert_leaves_nothing_behind(demo, processes, tmp_path)


@pytest.mark.parametrize(
    ("stop_signal", "seen"),
    [(signal.SIGINT, "Broker:"), (signal.SIGINT, "Sent version 2"), (signal.SIGTERM, "A client")],
)
def test_ends_quietly_when_it_is_told_to(demo, tmp_path, stop_signal, seen):
    eventually(lambda: seen in demo.output, SECONDS)
    processes = demo.tree()
    os.killpg(demo.process.pid, stop_signal)
    assert demo.process.wait(STOP_SECONDS) != 0
    assert "Error:" not in demo.output
    assert_leaves_nothing_behind(demo, processes, tmp_path)


def test_says_so_when_a_request_fails(demo, tmp_path):
    eventually(lambda: "A client asks" in demo.output, SECONDS)
    processes = demo.tree()
    for process in processes:
        if "wsgi:app" in process.cmdline():
            process.terminate()
    assert demo.process.wait(SECONDS) != 0
    assert "Error: a request has failed:" in demo.output
    assert_leaves_nothing_behind(demo, processes, tmp_path)
