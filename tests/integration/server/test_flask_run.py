"""`flask run`, as one who works on the code has it."""

from __future__ import annotations

import sys

import pytest

from tests.support.processes import free_port, running_on
from tests.support.waiting import eventually


@pytest.mark.parametrize(
    "options", [[], ["--debug"], ["--reload"], ["--debug", "--no-reload"]], ids=" ".join
)
def test_one_consumer_follows(topic, tmp_path, options):
    topic.send_state(1)
    port = free_port()
    command = [sys.executable, "-m", "flask", "--app", "wsgi", "run", "--port", str(port), *options]
    with running_on(topic, command, tmp_path / "output", port) as program:
        # its reloader listens long before there is a child that answers
        eventually(lambda: "Following as" in program.output)
        program.comes_to(1)
        topic.send_state(2)
        program.comes_to(2)
        # the reloader's parent has had the time that its child has had
        eventually(lambda: "State updated to: 2" in program.output)
        assert program.output.count("Following as") == 1
