"""Streams and waiting reads, on connections of their own to the program as it is run."""

from __future__ import annotations

import contextlib
import json
import select
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
import sseclient

from dev.broker import forwarding
from tests.support.processes import Program, assert_all_ended, following, free_port
from tests.support.secret_files import SecretFiles
from tests.support.topics import Topic, new_topic
from tests.support.waiting import eventually

Ask = Callable[[Program, str], socket.socket]

LEAVING_SECONDS = 5.0


@pytest.fixture
def program(serving):
    with serving() as program:
        program.comes_to(0)
        yield program


@pytest.fixture
def stream() -> Iterator[Callable[..., Iterator[Any]]]:
    """Open a stream with a client library, and give its events."""
    with contextlib.ExitStack() as opened:

        def stream(program: Program, events: str | None = "state", **headers: str) -> Iterator[Any]:
            answer = opened.enter_context(
                requests.get(
                    f"http://127.0.0.1:{program.port}/state/stream",
                    params={"events": events},
                    headers=headers,
                    stream=True,
                    timeout=30,
                )
            )
            assert answer.status_code == 200, answer.text
            return sseclient.SSEClient(answer).events()

        yield stream


@pytest.fixture
def ask() -> Iterator[Ask]:
    """Ask for a path, and leave it to the test to receive the answer."""
    with contextlib.ExitStack() as opened:

        def ask(program: Program, path: str) -> socket.socket:
            address = ("127.0.0.1", program.port)
            client = opened.enter_context(socket.create_connection(address, timeout=20))
            head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nPrefer: wait=60\r\n\r\n"
            client.sendall(head.encode())
            return client

        yield ask


def test_gives_the_current_state_and_each_newer_one_under_its_etag(topic, program, stream):
    topic.send_state("first")
    program.comes_to("first")
    events = stream(program)
    for state in ("first", "second", "third"):
        if state != "first":
            topic.send_state(state)
        event = next(events)
        assert event.event == "state"
        assert json.loads(event.data) == {"state": state}
        assert program.get().headers["ETag"] == f'"{event.id}"'


def test_does_not_repeat_what_a_returning_client_has_seen(topic, program, stream):
    seen = next(stream(program)).id
    again = stream(program, **{"Last-Event-ID": seen})
    topic.send_state("newer")
    assert json.loads(next(again).data) == {"state": "newer"}


def test_a_reader_who_was_away_gets_the_newest_and_few_before_it(topic, program, stream):
    producer = topic.new_producer(**{"message.max.bytes": 10**8})
    padding = "x" * 900_000
    events = stream(program)
    next(events)
    for number in range(40):
        topic.send_state([number, padding], producer=producer)
        eventually(lambda number=number: program.get().headers.get("X-State-Offset") == str(number))
    seen = []
    while seen[-1:] != [39]:
        seen.append(json.loads(next(events).data)["state"][0])
    assert len(seen) < 20


def test_tells_of_a_refused_message_and_of_the_state_that_stays(topic, program, stream):
    topic.send_state("first")
    program.comes_to("first")
    events = stream(program, events=None)
    assert json.loads(next(events).data) == {"state": "first"}
    said = json.loads(next(event for event in events if event.event == "status").data)
    assert (said["connected"], said["refused"], said["last_refused"]) == (True, 0, None)
    topic.send(b"not JSON")
    while not said["refused"]:
        event = next(events)
        assert event.event == "status"
        said = json.loads(event.data)
    assert (said["refused"], said["last_refused"]["reason"]) == (1, "json")


def test_a_stream_that_ends_with_its_worker_ends_its_connection(program, ask):
    client = ask(program, "/state/stream")
    received = client.recv(1000)
    assert received.startswith(b"HTTP/1.1 200 ")
    program.process.send_signal(signal.SIGHUP)
    while not received.endswith(b"\r\n0\r\n\r\n"):
        received += client.recv(10_000)
    # it would ask on this connection again, and wait for the worker's end
    client.settimeout(1)
    assert client.recv(1) == b""


@pytest.mark.apache_kafka
def test_a_stream_is_open_while_nothing_is_known_and_begins_with_the_topic(
    topic_name, bootstrap_servers, tmp_path, stream
):
    missing = Topic(topic_name, bootstrap_servers)
    with following(missing, tmp_path / "output", KAFKA_TOPIC_AUTO_CREATE="false") as program:
        eventually(lambda: (answer := program.get()) is not None and answer.status_code == 503)
        events = stream(program)
        topic = new_topic(bootstrap_servers, topic_name)
        assert json.loads(next(events).data) == {"state": 0}
        topic.send_state("first")
        assert json.loads(next(events).data) == {"state": "first"}


def test_those_who_wait_are_answered_at_a_stop(topic, program, stream, ask):
    events = stream(program)
    next(events)
    waiting = ask(program, "/state?min_offset=0:0")
    eventually(lambda: is_waited_on(program))
    processes = program.tree()
    program.process.send_signal(signal.SIGTERM)
    # not that the connection was lost
    assert list(events) == []
    assert waiting.recv(1000).startswith(b"HTTP/1.1 503 ")
    program.process.wait(LEAVING_SECONDS)
    assert_all_ended(processes)


def is_waited_on(program: Program) -> bool:
    # the request has been taken once the one after it is answered
    return program.get("/readyz").status_code == 200


@pytest.mark.parametrize("path", ["/state/stream", "/state?min_offset=0:0"])
def test_a_client_that_goes_away_frees_its_place(serving, ask, path):
    with serving("--threads=2", STATE_MAX_WAITING="1") as program:
        program.comes_to(0)
        client = ask_for_the_only_place(ask, program, path)
        answer = program.get("/state/stream")
        assert answer.headers["Retry-After"] == "1"
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert program.get().status_code == 200
        client.close()
        eventually(lambda: not refused(program), within=LEAVING_SECONDS)


def ask_for_the_only_place(ask: Ask, program: Program, path: str) -> socket.socket:
    # once one of two is told that there is no place, the other has it
    clients = [ask(program, path), ask(program, path)]
    refused = eventually(lambda: [client for client in clients if is_told_503(client)])[0]
    clients.remove(refused)
    refused.close()
    return clients[0]


def is_told_503(client: socket.socket) -> bool:
    is_answered, _, _ = select.select([client], [], [], 0)
    return bool(is_answered) and client.recv(12, socket.MSG_PEEK) == b"HTTP/1.1 503"


def refused(program: Program) -> bool:
    with requests.get(
        f"http://127.0.0.1:{program.port}/state/stream", stream=True, timeout=5
    ) as answer:
        return answer.status_code == 503


@pytest.mark.apache_kafka  # the embedded broker keeps 5 MB of a partition at most
def test_who_waits_is_not_cut_off_for_it_as_one_is_who_does_not_read(topic, serving, stream, ask):
    topic.send_state("x" * 8_000_000, producer=topic.new_producer(**{"message.max.bytes": 10**8}))
    with serving("--timeout", "3") as program:
        program.comes_to("x" * 8_000_000)
        events = stream(program, **{"Last-Event-ID": program.get().headers["ETag"].strip('"')})
        idle = ask(program, "/state")
        waiting = ask(program, "/state?min_offset=0:1")
        # the one who does not read loses the rest of its answer; the others were there before
        eventually(lambda: was_reset(idle))
        topic.send_state("next")
        assert json.loads(next(events).data) == {"state": "next"}
        assert waiting.recv(1000).startswith(b"HTTP/1.1 200 ")


@pytest.mark.apache_kafka  # the embedded broker keeps 5 MB of a partition at most
def test_a_stream_that_is_not_read_is_cut_off_and_makes_room(topic, serving, ask):
    topic.send_state("x" * 8_000_000, producer=topic.new_producer(**{"message.max.bytes": 10**8}))
    with serving("--timeout", "3", STATE_MAX_WAITING="1") as program:
        program.comes_to("x" * 8_000_000)
        unread = ask_for_the_only_place(ask, program, "/state/stream")
        eventually(lambda: was_reset(unread), within=10)
        eventually(lambda: not refused(program), within=LEAVING_SECONDS)


def test_the_first_event_comes_when_the_broker_does(topic, serving, stream):
    topic.send_state("first")
    port = free_port()
    with serving(KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{port}") as program:
        eventually(lambda: (answer := program.get()) is not None and answer.status_code == 503)
        events = stream(program)
        with forwarding(port, topic.servers):
            assert json.loads(next(events).data) == {"state": "first"}


def was_reset(client: socket.socket) -> bool:
    poll = select.poll()
    poll.register(client, 0)  # errors alone
    return bool(poll.poll(0))


def test_a_cap_that_leaves_no_thread_ends_the_program(topic, serving):
    with serving("--threads", "10", STATE_MAX_WAITING="10") as program:
        assert program.process.wait(20) != 0
        assert program.output.strip().splitlines()[-1] == (
            "Error: STATE_MAX_WAITING is '10': accepted is a whole number, 0 or more, and less "
            "than gunicorn's threads, 10"
        )


def test_tokens_rotate_without_a_gap_and_one_that_is_gone_ends_its_stream(
    topic, serving, stream, tmp_path
):
    files = SecretFiles(tmp_path / "secret", {"tokens": "the-first-of-the-tokens\n"})
    with serving(API_TOKEN_FILE=str(files.path("tokens"))) as program:

        def answers(token: str, path: str = "/state") -> bool:
            url = f"http://127.0.0.1:{program.port}{path}"
            given = {"Authorization": f"Bearer {token}"}
            return bool(requests.get(url, headers=given, timeout=5).status_code != 401)

        eventually(lambda: program.get("/healthz"))
        events = stream(program, Authorization="Bearer the-first-of-the-tokens")
        files.change({"tokens": "the-first-of-the-tokens\nthe-second-of-the-tokens\n"})
        eventually(lambda: answers("the-second-of-the-tokens"))
        assert answers("the-first-of-the-tokens")
        files.change({"tokens": "the-second-of-the-tokens\n"})
        eventually(lambda: not answers("the-first-of-the-tokens"))
        assert answers("the-second-of-the-tokens")
        topic.send_state("secret by now")
        assert "secret by now" not in [json.loads(event.data)["state"] for event in events]
        assert "of-the-tokens" not in program.output
