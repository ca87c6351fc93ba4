"""A signal may come while another one is handled: make, a terminal and gunicorn each send theirs."""

from __future__ import annotations

import sys

import pytest

from tests.support.processes import assert_all_ended, running_on

WITHIN_SECONDS = 5

# runs a module whose signal handlers are each interrupted by themselves, before every line
INTERRUPTING = """
import runpy, signal, sys

install = signal.signal

def interrupted(handle):
    def handle_interrupted(number, frame):
        def interrupt(*_):
            current = signal.getsignal(number)
            current = getattr(current, "uninterrupted", current)
            if callable(current):
                current(number, frame)
            return interrupt

        outer = sys.gettrace()
        sys.settrace(interrupt)
        try:
            handle(number, frame)
        finally:
            sys.settrace(outer)

    handle_interrupted.uninterrupted = handle
    return handle_interrupted

signal.signal = lambda number, handle: install(
    number, interrupted(handle) if callable(handle) else handle
)
module = sys.argv.pop(1)
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize("command", [["dev"], ["gunicorn", "wsgi:app"]])
def test_a_second_signal_to_end_it_may_interrupt_the_first(topic, tmp_path, command):
    topic.send_state(1)
    interrupting = [sys.executable, "-c", INTERRUPTING, *command]
    # a worker that hangs is killed only then
    patient = {"GUNICORN_CMD_ARGS": f"--graceful-timeout {10 * WITHIN_SECONDS}"}
    with running_on(topic, interrupting, tmp_path / "output", **patient) as program:
        program.comes_to(1)
        processes = program.tree()
        program.process.terminate()
        assert_all_ended(processes, WITHIN_SECONDS)
        assert "WORKER TIMEOUT" not in program.output
