"""When there are traces, and that no collector holds anything up."""

from __future__ import annotations

import signal

import pytest

from tests.support.processes import free_port
from tests.support.waiting import eventually

# serves which modules of OpenTelemetry have been imported
SPY = """
import sys

def load(message):
    return sorted(name for name in sys.modules if name.partition(".")[0] == "opentelemetry")
"""
AT_STOP = {"OTEL_BSP_SCHEDULE_DELAY": "600000"}


def says(program) -> list[str]:
    return [line for line in program.told if "OpenTelemetry says" in line]


def stopped(program) -> None:
    program.process.send_signal(signal.SIGTERM)
    assert program.process.wait(20) == 0, program.output


@pytest.mark.parametrize(
    "off",
    [
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_SDK_DISABLED": "true"},
        {"OTEL_TRACES_EXPORTER": "none"},
    ],
    ids=["not asked for", "disabled", "no exporter"],
)
def test_where_no_traces_are_wanted_nothing_is_imported(
    topic, serving_traced, collector, folder, off
):
    (folder / "spy.py").write_text(SPY)
    with serving_traced(**off, cwd=folder, STATE_LOADER="spy.load") as program:
        topic.send_state("any")
        program.comes_to([])
        stopped(program)
    assert "traces" not in program.output
    assert collector.exports == 0


@pytest.mark.parametrize("options", [[], ["--preload"]], ids=["", "preloaded"])
def test_where_the_extra_is_missing_one_line_says_so(serving_traced, folder, options):
    (folder / "opentelemetry.py").touch()  # takes the place of the packages
    with serving_traced("--workers", "2", *options, cwd=folder) as program:
        program.comes_to(0)
        stopped(program)
    (line,) = [line for line in program.told if "races" in line]
    assert (
        "[WARNING] No traces, which the variables OTEL_* ask for: they need the extra otel" in line
    )


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            {"OTEL_TRACES_EXPORTER": "zipkin"},
            "No traces: OTEL_TRACES_EXPORTER is 'zipkin': accepted are 'otlp' and 'none'",
        ),
        (
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "No traces: OTEL_EXPORTER_OTLP_PROTOCOL is 'grpc': accepted is 'http/protobuf'",
        ),
        (
            {"OTEL_BSP_MAX_QUEUE_SIZE": "-1"},
            "No traces, for the variables OTEL_* make no sense to the SDK: ValueError(",
        ),
    ],
    ids=["exporter", "protocol", "queue"],
)
def test_variables_that_make_no_sense_are_told_of_and_end_nothing(serving_traced, given, told):
    with serving_traced(**given) as program:
        program.comes_to(0)
        stopped(program)
    (line,) = [line for line in program.told if "races" in line]
    assert told in line


def test_a_stop_sends_what_was_not_sent_yet(topic, serving_traced, collector):
    with serving_traced(**AT_STOP) as program:
        topic.send_state("new")
        program.comes_to("new")
        assert collector.exports == 0
        stopped(program)
    assert len(collector.of_messages) == 1
    assert collector.of_requests[-1].attributes["url.path"] == "/state"


def test_a_collector_that_is_away_holds_nothing_up_and_is_logged_now_and_then(
    topic, serving_traced
):
    away = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}"}
    with serving_traced(**away) as program:
        for state in range(1, 4):
            topic.send_state(state)
            program.comes_to(state)
        eventually(lambda: says(program))
        stopped(program)
    assert 1 <= len(says(program)) <= 2
    assert "Traceback" not in program.output


def test_a_collector_that_does_not_answer_holds_up_neither_requests_nor_a_stop(
    topic, serving_traced, collector
):
    collector.hangs = True
    with serving_traced() as program:
        for state in range(1, 4):
            topic.send_state(state)
            program.comes_to(state)
        eventually(lambda: collector.exports)
        stopped(program)
    assert "[WARNING] The last traces are lost: not taken within 1 s" in program.output
    assert collector.spans == []


def test_a_collector_that_refuses_is_logged_without_the_secret_that_was_sent(
    serving_traced, collector
):
    collector.status = 401
    headers = {"OTEL_EXPORTER_OTLP_HEADERS": "api-key=s3cret,also s3cret"}
    with serving_traced(**headers) as program:
        program.comes_to(0)
        eventually(lambda: any("401" in line for line in says(program)))
        stopped(program)
    assert collector.headers["api-key"] == "s3cret"
    assert "s3cret" not in program.output
    assert any("(hidden)" in line for line in says(program))
