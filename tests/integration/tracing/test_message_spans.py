"""A message's way to being served is one span, whose parent is what its producer says."""

from __future__ import annotations

import functools
import re
import signal
import time

import pytest

from tests.support.crashes import Brokers
from tests.support.processes import following, producer
from tests.support.topics import Topic
from tests.support.waiting import eventually

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
OTHER_TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
HEADERS = [("traceparent", f"00-{TRACE}-{PARENT}-01"), ("tracestate", "shop=a1,other=b2")]

# refuses 1, cannot load 2 the first two times, and takes all others
LOADER = """
from app.loaders import InvalidMessage, RetryableError

tries = 0

def load(message):
    global tries
    if message.state == 1:
        raise InvalidMessage("odd", "it is 1")
    if message.state == 2 and tries < 2:
        tries += 1
        raise RetryableError("away", "what it needs is away")
    return message.state
"""


@pytest.fixture
def serving_own_loader(serving_traced, folder):
    (folder / "own.py").write_text(LOADER)
    return functools.partial(serving_traced, cwd=folder, STATE_LOADER="own.load")


def ended(program) -> None:
    """Stop it, after which nothing comes any more."""
    program.process.send_signal(signal.SIGTERM)
    assert program.process.wait(20) == 0, program.output


def test_a_message_has_one_span_whose_parent_is_its_producers(topic, serving_traced, collector):
    with serving_traced(OTEL_SERVICE_NAME="models") as program:
        program.comes_to(0)
        sent_at = time.time()
        topic.send_state("traced", headers=HEADERS)
        program.comes_to("traced")
        ended(program)
    (span,) = collector.of_messages
    assert (span.trace_id, span.parent_id) == (TRACE, PARENT)
    assert span.trace_state == "shop=a1,other=b2"
    assert span.name == f"process {topic.name}"
    assert span.attributes == {
        "messaging.system": "kafka",
        "messaging.operation.type": "process",
        "messaging.operation.name": "process",
        "messaging.destination.name": topic.name,
        "messaging.destination.partition.id": "0",
        "messaging.kafka.offset": 0,
    }
    assert span.resource["service.name"] == "models"
    assert span.started_at >= sent_at
    assert span.seconds > 0
    assert not span.is_error


def test_the_message_that_a_start_finds_has_a_span_too(topic, serving_traced, collector):
    topic.send_state("before", "last", headers=HEADERS)
    with serving_traced() as program:
        program.comes_to("last")
        ended(program)
    (span,) = collector.of_messages
    assert (span.trace_id, span.parent_id) == (TRACE, PARENT)
    assert span.attributes["messaging.kafka.offset"] == 1
    assert span.resource["service.name"] == "kafka-state"


@pytest.mark.parametrize(
    "headers",
    [
        None,
        [("traceparent", b"\xff\xfe")],
        [("traceparent", None)],
        [("traceparent", f"00-{'0' * 32}-{PARENT}-01")],
        [("traceparent", f"00-{TRACE}-{PARENT}-01" + "x" * 100_000)],
        [*HEADERS, ("traceparent", "the last one counts")],
    ],
    ids=["none", "no text", "null", "zeros", "too long", "two"],
)
def test_a_message_without_a_parent_that_makes_sense_begins_a_trace(
    topic, serving_traced, collector, headers
):
    with serving_traced() as program:
        program.comes_to(0)
        topic.send_state("untraced", headers=headers)
        program.comes_to("untraced")
        (span,) = eventually(lambda: collector.of_messages)
    assert span.parent_id == ""
    assert span.trace_id != TRACE


def test_a_producer_that_is_not_sampled_has_its_message_not_sampled(
    topic, serving_traced, collector
):
    with serving_traced() as program:
        program.comes_to(0)
        topic.send_state("first", headers=[("traceparent", f"00-{TRACE}-{PARENT}-00")])
        program.comes_to("first")
        topic.send_state("second", headers=HEADERS)
        program.comes_to("second")
        ended(program)
    (span,) = collector.of_messages
    assert span.attributes["messaging.kafka.offset"] == 1


def test_messages_that_are_skipped_have_no_span(topic, serving_traced, collector):
    with serving_traced() as program:
        program.comes_to(0)
        topic.send_state(*range(1, 2000), headers=HEADERS)
        program.comes_to(1999)
        metrics = program.get("/metrics").text
        ended(program)
    updates = float(re.search(r"^kafka_state_updates_total (\S+)", metrics, re.MULTILINE)[1])
    # one of the updates is the initial state, which no message has brought
    assert len(collector.of_messages) == updates - 1 < 1999


def test_a_refused_message_that_somebody_traces_has_a_span_with_the_reason(
    topic, serving_own_loader, collector
):
    with serving_own_loader() as program:
        topic.send_state("served")
        program.comes_to("served")
        topic.send(b"junk")
        topic.send_state(1)
        topic.send(b"junk", headers=HEADERS)
        topic.send_state(1, headers=HEADERS)
        eventually(lambda: program.get("/metrics").text.count('{reason="') == 3)
        ended(program)
    refused = [span for span in collector.of_messages if span.is_error]
    reasons = {span.attributes["messaging.kafka.offset"]: span for span in refused}
    assert {offset: span.attributes["error.type"] for offset, span in reasons.items()} == {
        3: "json",
        4: "odd",
    }
    assert {span.parent_id for span in refused} == {PARENT}
    assert len(collector.of_messages) == 3


def test_the_span_of_a_message_that_is_loaded_later_covers_all_tries(
    topic, serving_own_loader, collector
):
    with serving_own_loader() as program:
        program.comes_to(0)
        topic.send_state(2, headers=HEADERS)
        program.comes_to(2)
        ended(program)
    (span,) = collector.of_messages
    assert span.attributes["kafka_state.failed_loads"] == 2
    assert span.attributes["kafka_state.last_failure"] == "away"
    assert span.parent_id == PARENT
    # the least that two pauses take
    assert span.seconds > 0.1


def test_the_command_that_sends_a_message_passes_on_the_trace_that_it_runs_in(
    topic, serving_traced, collector
):
    given = {"TRACEPARENT": HEADERS[0][1], "TRACESTATE": HEADERS[1][1]}
    with serving_traced() as program:
        program.comes_to(0)
        assert producer("--state", "7", **topic.environ, **given).returncode == 0
        program.comes_to(7)
        again = {"TRACEPARENT": f"00-{OTHER_TRACE}-{PARENT}-01"}
        sent = producer("--again", place_of(program), **topic.environ, **again)
        assert sent.returncode == 0, sent.stderr
        eventually(lambda: len(collector.of_messages) == 2)
    assert [span.trace_id for span in collector.of_messages] == [TRACE, OTHER_TRACE]
    assert {span.parent_id for span in collector.of_messages} == {PARENT}
    assert collector.of_messages[0].trace_state == "shop=a1,other=b2"


def place_of(program) -> str:
    """Partition and offset of the state."""
    headers = program.get().headers
    return f"{headers['X-State-Partition']}:{headers['X-State-Offset']}"


def test_a_state_from_the_disk_has_a_span_without_a_parent(
    topic, bootstrap_servers, collector, tmp_path
):
    brokers = Brokers(bootstrap_servers)
    asked = Topic(topic.name, brokers.address)
    settings = {**collector.environ, "STATE_CACHE_DIR": str(tmp_path / "kept")}
    serve = functools.partial(following, asked, tmp_path / "output", **settings)
    topic.send_state("kept", headers=HEADERS)
    with serve() as program:
        program.comes_to("kept")
        ended(program)
    brokers.go()
    with serve() as program:
        program.comes_to("kept")
        ended(program)
    followed, restored = collector.of_messages
    assert followed.parent_id == PARENT
    assert restored.parent_id == ""


@pytest.mark.parametrize("options", [[], ["--preload"]], ids=["", "preloaded"])
def test_each_worker_has_a_span_of_its_own_in_the_trace(topic, serving_traced, collector, options):
    with serving_traced("--workers", "2", *options) as program:
        eventually(lambda: program.output.count("Initializing API") == 2)
        topic.send_state("traced", headers=HEADERS)
        spans = eventually(lambda: len(collector.of_messages) == 2 and collector.of_messages)
        ended(program)
    assert {(span.trace_id, span.parent_id) for span in spans} == {(TRACE, PARENT)}
    assert len({span.resource["service.instance.id"] for span in spans}) == 2
    assert len(collector.of_messages) == 2
