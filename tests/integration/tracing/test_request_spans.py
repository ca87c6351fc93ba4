"""A request has a span, which links to the span of the message whose state it was served."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from tests.support.waiting import eventually

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def ask(program, path="/state", **headers) -> requests.Response:
    return requests.get(f"http://127.0.0.1:{program.port}{path}", headers=headers, timeout=20)


def of_agent(collector, agent, count=1):
    """The spans of requests by this client."""

    def found():
        spans = [s for s in collector.of_requests if s.attributes["user_agent.original"] == agent]
        return len(spans) == count and spans

    return eventually(found)


def message_at(collector, offset):
    def found():
        return [
            s for s in collector.of_messages if s.attributes["messaging.kafka.offset"] == offset
        ]

    (span,) = eventually(found)
    return span


def test_each_read_of_the_state_links_to_its_message(topic, serving_traced, collector):
    with serving_traced() as program:
        topic.send_state("first")
        program.comes_to("first")
        answers = [ask(program, **{"User-Agent": "reader"}) for _ in range(3)]
        known = {"If-None-Match": answers[0].headers["ETag"], "User-Agent": "knows"}
        assert [ask(program, **known).status_code for _ in range(2)] == [304, 304]
        spans = of_agent(collector, "reader", 3) + of_agent(collector, "knows", 2)
        message = message_at(collector, 0)
        topic.send_state("second")
        program.comes_to("second")
        ask(program, **{"User-Agent": "later"})
        (later,) = of_agent(collector, "later")
        assert later.links == [message_at(collector, 1).id]
    assert {tuple(span.links) for span in spans} == {(message.id,)}
    assert {span.name for span in spans} == {"GET /state"}


def test_a_request_has_the_clients_span_as_its_parent(topic, serving_traced, collector):
    with serving_traced() as program:
        program.comes_to(0)
        ask(
            program,
            "/status?secret=1",
            **{"traceparent": f"00-{TRACE}-{PARENT}-01", "User-Agent": "client"},
        )
        (span,) = of_agent(collector, "client")
    assert (span.trace_id, span.parent_id) == (TRACE, PARENT)
    assert span.links == []
    assert span.attributes == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "http.route": "/status",
        "url.path": "/status",
        "url.scheme": "http",
        "client.address": "127.0.0.1",
        "user_agent.original": "client",
    }


def test_no_other_than_the_probes_is_without(topic, serving_traced, collector):
    with serving_traced() as program:
        program.comes_to(0)
        for path in ("/healthz", "/readyz", "/metrics", "/nowhere/%C3%BC", "/state"):
            ask(program, path, **{"User-Agent": "all"})
        spans = of_agent(collector, "all", 3)
    assert [span.name for span in spans] == ["GET /metrics", "GET", "GET /state"]
    assert spans[1].attributes["url.path"] == "/nowhere/%C3%BC"
    assert spans[1].attributes["http.response.status_code"] == 404
    assert not spans[1].is_error


def test_an_answer_that_is_the_servers_fault_is_an_error(topic, serving_traced, collector):
    with serving_traced() as program:
        program.comes_to(0)
        ask(program, "/state?min_offset=0:7", **{"Prefer": "wait=0", "User-Agent": "early"})
        (span,) = of_agent(collector, "early")
    assert span.is_error
    assert span.attributes["error.type"] == "503"


def test_a_method_that_nobody_knows_is_not_in_a_spans_name(topic, serving_traced, collector):
    with serving_traced() as program:
        program.comes_to(0)
        url = f"http://127.0.0.1:{program.port}/state"
        requests.request("BREW", url, headers={"User-Agent": "pot"}, timeout=20)
        (span,) = of_agent(collector, "pot")
    assert span.name == "HTTP"
    assert span.attributes["http.request.method"] == "_OTHER"


def test_a_read_that_waited_links_to_the_message_it_waited_for(topic, serving_traced, collector):
    with serving_traced() as program, ThreadPoolExecutor(1) as clients:
        program.comes_to(0)
        waits = {"Prefer": "wait=20", "If-None-Match": '"initial"', "User-Agent": "waits"}
        answer = clients.submit(ask, program, **waits)
        topic.send_state("new")
        assert answer.result().json() == {"state": "new"}
        (span,) = of_agent(collector, "waits")
        assert span.links == [message_at(collector, 0).id]


def test_the_span_of_a_stream_ends_when_it_is_open(topic, serving_traced, collector):
    with serving_traced() as program:
        program.comes_to(0)
        url = f"http://127.0.0.1:{program.port}/state/stream"
        headers = {"User-Agent": "stream"}
        with requests.get(url, headers=headers, stream=True, timeout=20) as stream:
            (span,) = of_agent(collector, "stream")
            topic.send_state("new")
            assert b'data: {"state":"new"}' in stream.iter_lines()
    assert span.name == "GET /state/stream"
    assert span.links == []


@pytest.mark.parametrize("options", [[], ["-k", "gthread"]], ids=["", "gthread"])
def test_two_workers_have_spans_of_their_own(topic, serving_traced, collector, options):
    with serving_traced("--workers", "2", "--preload", *options) as program:
        topic.send_state("new")
        eventually(lambda: program.output.count('"new"') >= 2)
        spans = eventually(lambda: len(collector.of_messages) == 2 and collector.of_messages)
        for _ in range(8):
            ask(program, **{"User-Agent": "many"})
        reads = of_agent(collector, "many", 8)
    by_worker = {span.resource["service.instance.id"]: span.id for span in spans}
    for read in reads:
        assert read.links == [by_worker[read.resource["service.instance.id"]]]
