"""A plain read is answered as Flask answered the same one before."""

from __future__ import annotations

import dataclasses
import gc
import time
import weakref

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app import create_app
from app.service import Service, service_of
from app.settings import Settings
from app.state import Snapshot
from app.web import repeated_reads

TOKEN = "token-of-many-letters"
FIRST = Snapshot("1", 1_700_000_000_000, 0, 5, "id")
SECOND = Snapshot("2", 1_700_000_001_000, 0, 6, "id")


class Read:
    """A service whose state is known, and how often Flask was asked."""

    def __init__(self, **settings: str) -> None:
        self.app: Flask = create_app(Settings(topic="t", **settings), starts_consumer=False)
        self.service: Service = service_of(self.app)
        self.by_flask = 0
        self.app.before_request(self._count)
        self.service.state.publish(FIRST, {0: 6})

    def _count(self) -> None:
        self.by_flask += 1

    @property
    def client(self) -> FlaskClient:
        return self.app.test_client()

    def is_stale_for(self, seconds: float) -> None:
        reporter = self.service.consumer._reporter
        since = time.monotonic() - seconds
        reporter.status = dataclasses.replace(reporter.status, current_as_of=since)


@pytest.fixture
def read() -> Read:
    return Read()


def same(read: Read, path: str = "/state", method: str = "GET", **headers: str) -> bool:
    """Whether two answers to a request are the same."""
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    first, second = (read.client.open(path, method=method, headers=headers) for _ in range(2))
    return (first.status, list(first.headers), first.data) == (
        second.status,
        list(second.headers),
        second.data,
    )


@pytest.mark.parametrize(
    "headers", [{}, {"If_None_Match": f'"{FIRST.version}"'}, {"Accept": "*/*"}]
)
def test_the_second_answer_is_that_of_the_first_and_not_made_again(read, headers):
    assert same(read, **headers)
    assert read.by_flask == 1


def test_a_change_of_the_state_ends_it(read):
    assert same(read)
    read.service.state.publish(SECOND, {0: 7})
    assert read.client.get("/state").json == {"state": 2}
    assert read.client.get("/state").headers["X-State-Offset"] == "6"
    assert read.by_flask == 2


def test_a_stale_state_says_so_each_time(read):
    assert same(read)
    for seconds in (20, 30):
        read.is_stale_for(seconds)
        assert read.client.get("/state").headers["X-State-Stale"] == str(seconds)


@pytest.mark.parametrize(
    ("path", "method", "headers"),
    [
        ("/state?min_offset=0:1", "GET", {}),
        ("/state", "HEAD", {}),
        ("/state", "GET", {"Prefer": "wait=1"}),
        ("/readyz", "GET", {}),
    ],
)
def test_other_requests_are_flasks(read, path, method, headers):
    assert same(read, path, method, **headers)
    assert read.by_flask == 2


def test_the_token_is_asked_for_each_time():
    read = Read(api_token=TOKEN)
    right, wrong = f"Bearer {TOKEN}", "Bearer another-of-many-letters"
    assert same(read, Authorization=right)
    for headers in ({}, {"Authorization": wrong}):
        assert read.client.get("/state", headers=headers).status_code == 401
    assert same(read, Authorization=right)


def test_a_token_that_is_no_longer_accepted_is_asked_for_again(tmp_path, monkeypatch):
    monkeypatch.setattr("app.settings.settings.TOKENS_SECONDS", 0)
    file = tmp_path / "tokens"
    file.write_text(f"{TOKEN}\nanother-of-many-letters\n")
    read = Read(api_token_file=str(file))
    assert same(read, Authorization=f"Bearer {TOKEN}")
    file.write_text("another-of-many-letters\n")
    given = {"Authorization": f"Bearer {TOKEN}"}
    assert read.client.get("/state", headers=given).status_code == 401
    assert same(read, Authorization="Bearer another-of-many-letters")


def test_both_are_counted(read):
    same(read)
    text = read.service.metrics.expose("")[0].decode()
    labels = '{method="GET",route="/state",status="200"}'
    assert f"http_requests_total{labels} 2.0" in text


def test_what_flask_said_of_an_older_state_is_not_kept(read):
    """The state changes while Flask answers."""

    @read.app.after_request
    def change(response):
        read.service.state.publish(SECOND, {0: 7})
        return response

    assert read.client.get("/state").json == {"state": 1}
    assert read.client.get("/state").json == {"state": 2}


def test_what_clients_make_up_is_not_kept_without_end(read):
    for number in range(100):
        read.client.get("/state", headers={"If-None-Match": f'"{number}"'})
    kept = read.app.wsgi_app._answers  # type: ignore[attr-defined]
    assert len(kept) == repeated_reads.MOST_ANSWERS


def test_a_state_that_is_not_known_is_told_by_flask():
    app = create_app(Settings(topic="t"), starts_consumer=False)
    assert app.test_client().get("/state").status_code == 503


def test_what_is_served_no_more_is_not_kept(read):
    """It may be a large model."""
    served = Snapshot("3", 1_700_000_002_000, 0, 7, "id")
    read.service.state.publish(served, {0: 8})
    assert same(read)
    kept = weakref.ref(served)
    del served
    read.service.state.publish(SECOND, {0: 9})
    gc.collect()
    assert kept() is None
