"""What is answered, given a state: no broker, no thread."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from typing import Any

import pytest
from flask import Flask

from app.following.status import LastError, Progress, RefusedMessage
from app.service import KEY, service_of
from app.settings import Settings
from app.state import Snapshot, State
from app.web import errors as problems
from app.web import stream, views
from tests.support.still import still_app
from tests.support.waiting import eventually


@pytest.fixture
def state() -> State:
    return State()


@pytest.fixture
def app(state) -> Flask:
    app = still_app(state, waiting=2)
    app.register_blueprint(views.blueprint)
    problems.register(app)
    return app


@pytest.fixture
def client(app):
    return app.test_client()


@pytest.fixture
def waiting(app, state, monkeypatch):
    """Ask in a thread, and give the answer's future once the request waits."""
    monkeypatch.setattr("app.web.limits.POLL_SECONDS", 60.0)  # they are woken, and do not look
    waiting = service_of(app).waiting
    with ThreadPoolExecutor() as threads:

        def ask(path: str, **headers: str):
            before = waiting.taken
            answer = threads.submit(lambda: app.test_client().get(path, headers=headers))
            eventually(lambda: waiting.taken > before or answer.done())
            assert not answer.done(), answer.result().data
            return answer

        yield ask
        state.close()


def message(offset: int, value: str = "77", partition: int = 0) -> Snapshot:
    return Snapshot(value, timestamp=1_700_000_000_000, partition=partition, offset=offset)


def test_greets(client):
    assert client.get("/").json == {"message": "Hello World"}


def test_state_is_unavailable_with_the_reason_while_nothing_is_known(client, state):
    state.explain("connecting to broker:9092")
    for path in ("/state", "/readyz"):
        answer = client.get(path)
        assert answer.status_code == 503
        assert answer.mimetype == "application/problem+json"
        assert answer.json == {
            "type": "about:blank",
            "title": "Service Unavailable",
            "status": 503,
            "detail": "connecting to broker:9092",
        }
        assert answer.headers["Retry-After"] == "1"


def test_serves_exactly_the_state_and_says_which_message_it_came_from(client, state):
    state.publish(Snapshot("77", timestamp=1_700_000_000_123, partition=2, offset=5), {0: 0})
    answer = client.get("/state")
    assert answer.status_code == 200
    assert answer.data == b'{"state":77}'
    assert answer.mimetype == "application/json"
    assert answer.headers["ETag"] == '"2-5-1700000000123"'
    assert answer.headers["Last-Modified"] == "Tue, 14 Nov 2023 22:13:20 GMT"
    assert answer.headers["X-State-Partition"] == "2"
    assert answer.headers["X-State-Offset"] == "5"
    assert client.get("/readyz").json == {"status": "ready"}


def test_the_initial_value_comes_from_no_message(client, state):
    state.publish(Snapshot('{"model":null}'), {0: 0})
    answer = client.get("/state")
    assert answer.data == b'{"state":{"model":null}}'
    assert not {"Last-Modified", "X-State-Partition", "X-State-Offset"} & set(answer.headers.keys())


@pytest.mark.parametrize("timestamp", [-1, -(2**63), 2**63 - 1, 253_402_300_800_000])
def test_serves_a_message_whose_timestamp_no_calendar_has(client, state, timestamp):
    state.publish(Snapshot("1", timestamp=timestamp, partition=0, offset=0), {0: 0})
    answer = client.get("/state")
    assert answer.status_code == 200
    assert "Last-Modified" not in answer.headers


def test_keeps_the_etag_of_a_message_and_changes_it_with_every_other(client, state):
    etags = set()
    for offset in (1, 2):
        state.publish(Snapshot("same", timestamp=5, partition=0, offset=offset), {0: 0})
        etags |= {client.get("/state").headers["ETag"] for _ in range(2)}
    assert len(etags) == 2


def test_a_state_that_is_known_already_is_not_sent_again(client, state):
    state.publish(message(5), {0: 6})
    etag = client.get("/state").headers["ETag"]
    answer = client.get("/state", headers={"If-None-Match": f'"other", W/{etag}'})
    assert answer.status_code == 304
    assert answer.data == b""
    assert answer.headers["ETag"] == etag
    assert answer.headers["X-State-Offset"] == "5"
    assert client.get("/state", headers={"If-None-Match": '"other"'}).status_code == 200
    state.publish(message(6), {0: 7})
    assert client.get("/state", headers={"If-None-Match": etag}).status_code == 200


def test_a_date_is_no_condition_for_many_messages_have_the_same(client, state):
    state.publish(message(5), {0: 6})
    date = client.get("/state").headers["Last-Modified"]
    assert client.get("/state", headers={"If-Modified-Since": date}).status_code == 200


def test_a_head_request_gets_the_headers_alone(client, state):
    state.publish(message(5), {0: 6})
    answer = client.head("/state")
    assert answer.data == b""
    assert answer.headers["Content-Length"] == "12"
    assert answer.headers["X-State-Offset"] == "5"


def test_a_read_that_prefers_to_wait_is_answered_with_the_next_state(client, state, waiting):
    state.publish(message(5), {0: 6})
    etag = client.get("/state").headers["ETag"]
    answer = waiting("/state", if_none_match=etag, prefer="wait=60")
    state.publish(message(6, "78"), {0: 7})
    assert answer.result(10).json == {"state": 78}
    assert answer.result().headers["Preference-Applied"] == "wait=45"


def test_a_read_that_waited_in_vain_is_answered_that_nothing_changed(client, state):
    state.publish(message(5), {0: 6})
    etag = client.get("/state").headers["ETag"]
    answer = client.get("/state", headers={"If-None-Match": etag, "Prefer": "wait=1"})
    assert answer.status_code == 304
    assert answer.headers["Preference-Applied"] == "wait=1"


def test_a_read_that_prefers_to_wait_does_not_if_the_state_is_another_already(client, state):
    state.publish(message(5), {0: 6})
    answer = client.get("/state", headers={"If-None-Match": '"other"', "Prefer": "wait=60"})
    assert answer.json == {"state": 77}
    assert "Preference-Applied" not in answer.headers


@pytest.mark.parametrize("added", ["-gzip", "-br", "-zstd"])
def test_a_version_that_a_proxy_has_compressed_is_known_too(client, state, added):
    state.publish(message(5), {0: 6})
    etag = client.get("/state").headers["ETag"].removesuffix('"') + f'{added}"'
    assert client.get("/state", headers={"If-None-Match": etag}).status_code == 304
    assert client.get("/state", headers={"If-None-Match": f"W/{etag}"}).status_code == 304


def test_a_read_may_wait_for_the_first_state(state, waiting):
    answer = waiting("/state", prefer="wait=60")
    state.publish(message(5), {0: 6})
    assert answer.result(10).json == {"state": 77}


def test_a_read_for_an_offset_waits_until_all_its_partitions_are_read_through(state, waiting):
    state.publish(message(5), {0: 6, 1: 0})
    answer = waiting("/state?min_offset=0:6&min_offset=1:0&min_offset=0:3", prefer="wait=60")
    state.publish(message(6, "1"), {0: 7, 1: 0})
    assert not answer.done()
    state.publish(message(0, "2", partition=1), {0: 7, 1: 1})
    assert answer.result(10).json == {"state": 2}


def test_an_offset_is_read_through_when_its_message_was_invalid(client, state):
    state.publish(message(5), {0: 7})
    assert client.get("/state?min_offset=0:6").headers["X-State-Offset"] == "5"


def test_an_offset_that_is_not_reached_in_time_is_503_with_the_position(client, state):
    state.publish(message(5), {0: 6, 1: 0})
    answer = client.get("/state?min_offset=0:6&min_offset=0:5", headers={"Prefer": "wait=0"})
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "1"
    assert answer.headers["Preference-Applied"] == "wait=0"
    assert answer.json["detail"] == (
        "min_offset is 0:6, and partition 0 is at position 6, the offset that is read next"
    )


@pytest.mark.parametrize(
    "given",
    [
        "",
        "7",
        "0:",
        ":7",
        "0:-1",
        "-1:0",
        "0:7:1",
        "a:b",
        " 0:7",
        "\u0660:\u0667",
        "0:" + "9" * 19,
        "9" * 10 + ":0",
    ],
)
def test_an_offset_that_is_none_is_400_with_what_is_accepted(client, state, given):
    state.publish(message(5), {0: 6})
    answer = client.get("/state", query_string={"min_offset": ["0:0", given]})
    assert answer.status_code == 400
    assert repr(given) in answer.json["detail"]
    assert "PARTITION:OFFSET" in answer.json["detail"]


def test_a_partition_that_the_topic_does_not_have_is_400_at_once(client, state):
    state.publish(message(5), {0: 6, 1: 0})
    answer = client.get("/state?min_offset=2:0", headers={"Prefer": "wait=60"})
    assert answer.status_code == 400
    assert "partitions, 0 to 1" in answer.json["detail"]


def test_more_than_may_wait_are_told_to_come_again_and_the_others_answered(client, state, waiting):
    state.publish(message(5), {0: 6})
    held = [waiting("/state?min_offset=0:6", prefer="wait=60") for _ in range(2)]
    for path in ("/state?min_offset=0:6", "/state/stream"):
        answer = client.get(path, headers={"Prefer": "wait=5"})
        assert answer.status_code == 503
        assert answer.headers["Retry-After"] == "1"
        assert answer.json["detail"] == "the limit on waiting requests is reached: 2"
        assert "Preference-Applied" not in answer.headers
    assert client.get("/state?min_offset=0:5").status_code == 200
    head = client.head("/state/stream")
    assert head.status_code == 200
    assert "Content-Length" not in head.headers
    state.publish(message(6), {0: 7})
    assert {answer.result(10).status_code for answer in held} == {200}
    assert client.get("/state/stream", buffered=False).status_code == 200


def test_those_who_wait_are_answered_when_the_service_ends(client, state, waiting):
    state.publish(message(5), {0: 6})
    etag = client.get("/state").headers["ETag"]
    unchanged = waiting("/state", if_none_match=etag, prefer="wait=60")
    stream = client.get("/state/stream")
    events = events_of(stream)
    assert "77" in next(events)
    state.close()
    assert unchanged.result(10).status_code == 304
    assert list(events) == []
    stream.close()


def events_of(answer) -> Iterator[str]:
    """The events of a stream, without how long to wait before coming again."""
    chunks = (chunk.decode() for chunk in answer.iter_encoded())
    assert next(chunks) == "retry: 1000\n\n"
    return chunks


def test_a_stream_gives_the_current_state_and_then_the_newest(client, state):
    state.publish(message(5), {0: 6})
    answer = client.get("/state/stream?events=state")
    assert answer.mimetype == "text/event-stream"
    assert answer.headers["Cache-Control"] == "no-cache, no-transform"
    events = events_of(answer)
    assert next(events) == 'event: state\nid: 0-5-1700000000000\ndata: {"state":77}\n\n'
    state.publish(message(6, "78"), {0: 7})
    state.publish(message(7, "79"), {0: 8})
    assert next(events) == 'event: state\nid: 0-7-1700000000000\ndata: {"state":79}\n\n'
    answer.close()


def test_a_stream_does_not_repeat_what_the_client_has_seen_and_stays_audible(
    client, state, monkeypatch
):
    monkeypatch.setattr(stream, "HEARTBEAT_SECONDS", 0.01)
    state.publish(message(5), {0: 6})
    answer = client.get("/state/stream?events=state", headers={"Last-Event-ID": message(5).version})
    events = events_of(answer)
    assert next(events) == ":\n\n"
    state.publish(message(6, "78"), {0: 7})
    assert "78" in next(events)
    answer.close()


def test_a_stream_leaves_its_seat_when_it_is_closed(client, state, app):
    state.publish(message(5), {0: 6})
    answer = client.get("/state/stream")
    next(events_of(answer))
    assert service_of(app).waiting.taken == 1
    answer.close()
    assert service_of(app).waiting.taken == 0


def test_healthz_tells_whether_the_thread_lives(client, app):
    assert client.get("/healthz").json == {"status": "alive"}
    service_of(app).consumer.alive = False
    assert client.get("/healthz").status_code == 503


def test_healthz_tells_of_a_thread_that_has_made_no_loop_for_a_minute(client, app):
    service_of(app).consumer.silent_seconds = 59.0
    assert client.get("/healthz").status_code == 200
    service_of(app).consumer.silent_seconds = 61.0
    answer = client.get("/healthz")
    assert answer.status_code == 503
    assert answer.json["detail"] == "the consumer thread has made no loop for 61 s"


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/nowhere", 404), ("POST", "/state", 405)]
)
def test_errors_are_problem_json(client, method, path, status):
    answer = client.open(path, method=method)
    assert answer.status_code == status
    assert answer.mimetype == "application/problem+json"
    assert answer.json["status"] == status
    assert answer.json["title"]


def test_a_method_that_is_not_allowed_is_told_which_are(client):
    assert "GET" in client.post("/state").headers["Allow"]


def test_a_failure_nobody_thought_of_is_problem_json_without_its_text(client, app):
    @app.get("/fails")
    def fails():
        raise RuntimeError("secret")

    answer = client.get("/fails")
    assert answer.status_code == 500
    assert answer.mimetype == "application/problem+json"
    assert b"secret" not in answer.data


def test_readers_never_see_a_snapshot_in_the_making(state):
    state.publish(Snapshot("0", timestamp=0, partition=0, offset=0), {0: 0})
    seen = []

    def read() -> None:
        while seen[-1:] != [999]:
            snapshot = state.read()
            assert snapshot.json == str(snapshot.offset) == str(snapshot.timestamp)
            seen.append(snapshot.offset)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(1000):
        state.publish(Snapshot(str(number), timestamp=number, partition=0, offset=number), {0: 0})
    reader.join(10)
    assert seen == sorted(seen)
    assert seen[-1] == 999


def status_events(events: Iterator[str]) -> Iterator[dict[str, Any]]:
    for event in events:
        if event.startswith("event: status\ndata: "):
            yield json.loads(event.partition("data: ")[2])


@pytest.fixture
def status_is(app):
    """Have the consumer say something of itself."""

    def say(**changes: Any) -> None:
        consumer = service_of(app).consumer
        consumer.status = dataclasses.replace(consumer.status, **changes)

    return say


def test_a_stream_tells_how_following_goes_after_the_state_and_at_each_change(
    client, state, status_is, monkeypatch
):
    monkeypatch.setattr(stream, "STATUS_SECONDS", 0.01)
    state.publish(message(5), {0: 6})
    answer = client.get("/state/stream")
    events = events_of(answer)
    assert next(events).startswith("event: state")
    told = status_events(events)
    assert next(told) == {
        "topic": "topic",
        "connected": False,
        "reason": None,
        "lag": None,
        "partitions": [],
        "partition_count": 0,
        "partitions_in_trouble": 0,
        "stale_seconds": 0,
        "refused": 0,
        "last_refused": None,
        "pending": None,
    }
    now = datetime.now(timezone.utc)
    status_is(connected_since=now, partitions={0: Progress(5, 6), 1: Progress(0, 2)})
    said = next(told)
    assert (said["lag"], said["partition_count"], said["partitions_in_trouble"]) == (3, 2, 0)
    assert said["partitions"] == [
        {"partition": 1, "position": 0, "end": 2, "lag": 2, "error": None},
        {"partition": 0, "position": 5, "end": 6, "lag": 1, "error": None},
    ]
    refused = RefusedMessage(now, "id", 1, 7, "json", "not JSON")
    status_is(invalid_messages={"json": 2, "schema": 1}, last_invalid=refused)
    said = next(told)
    assert said["refused"] == 3
    assert said["last_refused"] | {"at": ""} == {
        "at": "",
        "partition": 1,
        "offset": 7,
        "reason": "json",
        "detail": "not JSON",
    }
    status_is(connected_since=None, last_error=LastError(now, "connection refused"))
    said = next(told)
    assert (said["connected"], said["reason"]) == (False, "connection refused")
    answer.close()


def test_a_stream_tells_how_following_goes_where_no_state_is_known(client):
    answer = client.get("/state/stream")
    assert "event: status" in next(events_of(answer))
    answer.close()


def test_a_stream_of_states_alone_tells_nothing_else(client, state, status_is, monkeypatch):
    monkeypatch.setattr(stream, "STATUS_SECONDS", 0.01)
    monkeypatch.setattr(stream, "HEARTBEAT_SECONDS", 0.1)
    state.publish(message(5), {0: 6})
    answer = client.get("/state/stream?events=state")
    events = events_of(answer)
    assert next(events).startswith("event: state")
    status_is(updates=1, connected_since=datetime.now(timezone.utc))
    assert next(events) == ":\n\n"
    answer.close()


def test_a_stream_of_other_events_than_there_are_is_refused(client):
    answer = client.get("/state/stream?events=status")
    assert answer.status_code == 400
    assert answer.json["detail"] == (
        "events is 'status': accepted is state, for those events alone"
    )


def test_what_is_stale_says_for_how_long(client, state, status_is):
    state.publish(message(5), {0: 6})
    for seconds, header in ((2, None), (7.5, "7")):
        status_is(current_as_of=time.monotonic() - seconds)
        answer = client.get("/state")
        assert answer.status_code == 200
        assert answer.headers.get("X-State-Stale") == header
        etag = {"If-None-Match": answer.headers["ETag"]}
        assert client.get("/state", headers=etag).headers.get("X-State-Stale") == header
        told = client.get("/status").json["stale_seconds"]
        assert told == pytest.approx(seconds if header else 0, abs=0.4)
        assert client.get("/readyz").status_code == 200


def test_a_state_from_the_disk_is_ready_and_stale_from_the_first_moment_on(
    client, state, status_is
):
    state.publish(message(5), {}, "connection refused")
    status_is(cached=True, current_as_of=time.monotonic() - 1.2)
    answer = client.get("/state")
    assert answer.status_code == 200
    assert answer.headers["X-State-Stale"] == "1"
    assert client.get("/readyz").json == {
        "status": "ready",
        "cached": "the state is from the disk, where it was current 1 s ago: connection refused",
    }
    assert client.get("/status").json["cached"] is True
    state.publish(message(5), {0: 6})
    status_is(cached=False)
    assert client.get("/readyz").json == {"status": "ready"}
    assert client.get("/status").json["cached"] is False


def test_of_a_state_from_the_disk_nobody_knows_which_offsets_it_is_past(client, state, waiting):
    state.publish(message(5), {}, "connection refused")
    answer = client.get("/state?min_offset=0:4", headers={"Prefer": "wait=0"})
    assert answer.status_code == 503
    assert answer.json["detail"] == (
        "which offsets have been read is not known before the log is: connection refused"
    )
    waits = waiting("/state?min_offset=0:4")
    state.publish(message(5), {0: 6})
    assert waits.result(10).status_code == 200


def test_is_not_ready_where_the_state_is_staler_than_it_may_be(app, client, state, status_is):
    app.extensions[KEY] = dataclasses.replace(
        service_of(app), settings=Settings(topic="topic", max_stale_seconds=60)
    )
    state.publish(message(5), {0: 6})
    status_is(last_error=LastError(datetime.now(timezone.utc), "connection refused"))
    for seconds, code in ((59, 200), (61, 503)):
        status_is(current_as_of=time.monotonic() - seconds)
        ready = client.get("/readyz")
        assert ready.status_code == code
        assert client.get("/state").status_code == 200
    assert ready.json["detail"] == (
        "the end of topic was confirmed 61 s ago, and STATE_MAX_STALE_SECONDS is 60: "
        "connection refused"
    )


def test_tells_what_was_served_and_refused_the_newest_first(app, client):
    history = service_of(app).history
    for offset in range(3):
        history.note_served(message(offset, str(offset)))
    history.note_refused(RefusedMessage(datetime.now(timezone.utc), "id", 1, 7, "json", "not JSON"))
    answer = client.get("/state/history").json
    assert [served["state"] for served in answer["states"]] == [2, 1]
    assert answer["states"][0]["version"] == message(2).version
    assert [(it["partition"], it["offset"], it["reason"]) for it in answer["refused"]] == [
        (1, 7, "json")
    ]


def test_there_is_no_history_where_it_is_turned_off(app, client):
    app.extensions[KEY] = dataclasses.replace(
        service_of(app), settings=Settings(topic="topic", history=0)
    )
    answer = client.get("/state/history")
    assert answer.status_code == 404
    assert answer.json["detail"] == "there is no history: STATE_HISTORY is 0"
