"""What is answered, given a state: no broker, no thread."""

from __future__ import annotations

import threading

import pytest
from flask import Flask

from app import problems, views
from app.state import Snapshot, State


class StillConsumer:
    alive = True
    silent_seconds = 0.0

    def is_alive(self) -> bool:
        return self.alive

    def seconds_since_loop(self) -> float:
        return self.silent_seconds


@pytest.fixture
def state() -> State:
    return State()


@pytest.fixture
def app(state) -> Flask:
    app = Flask("app")
    app.extensions["state"] = state
    app.extensions["consumer"] = StillConsumer()
    app.register_blueprint(views.blueprint)
    problems.register(app)
    return app


@pytest.fixture
def client(app):
    return app.test_client()


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
    state.publish(Snapshot("77", timestamp=1_700_000_000_123, partition=2, offset=5))
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
    state.publish(Snapshot('{"model":null}'))
    answer = client.get("/state")
    assert answer.data == b'{"state":{"model":null}}'
    assert not {"Last-Modified", "X-State-Partition", "X-State-Offset"} & set(answer.headers.keys())


@pytest.mark.parametrize("timestamp", [-1, -(2**63), 2**63 - 1, 253_402_300_800_000])
def test_serves_a_message_whose_timestamp_no_calendar_has(client, state, timestamp):
    state.publish(Snapshot("1", timestamp=timestamp, partition=0, offset=0))
    answer = client.get("/state")
    assert answer.status_code == 200
    assert "Last-Modified" not in answer.headers


def test_keeps_the_etag_of_a_message_and_changes_it_with_every_other(client, state):
    etags = set()
    for offset in (1, 2):
        state.publish(Snapshot("same", timestamp=5, partition=0, offset=offset))
        etags |= {client.get("/state").headers["ETag"] for _ in range(2)}
    assert len(etags) == 2


def test_healthz_tells_whether_the_thread_lives(client, app):
    assert client.get("/healthz").json == {"status": "alive"}
    app.extensions["consumer"].alive = False
    assert client.get("/healthz").status_code == 503


def test_healthz_tells_of_a_thread_that_has_made_no_loop_for_a_minute(client, app):
    app.extensions["consumer"].silent_seconds = 59.0
    assert client.get("/healthz").status_code == 200
    app.extensions["consumer"].silent_seconds = 61.0
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
    state.publish(Snapshot("0", timestamp=0, partition=0, offset=0))
    seen = []

    def read() -> None:
        while seen[-1:] != [999]:
            snapshot = state.read()
            assert snapshot.json == str(snapshot.offset) == str(snapshot.timestamp)
            seen.append(snapshot.offset)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(1000):
        state.publish(Snapshot(str(number), timestamp=number, partition=0, offset=number))
    reader.join(10)
    assert seen == sorted(seen)
    assert seen[-1] == 999
