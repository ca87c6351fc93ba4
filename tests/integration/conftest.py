from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from app import create_app
from app.service import service_of
from app.settings import Settings
from dev import apache_kafka
from dev.apache_kafka import ApacheKafka
from tests.processes import following
from tests.topics import Topic
from tests.waiting import eventually


class Service:
    """The application in this process, asked through Flask's own client."""

    def __init__(self, app: Flask) -> None:
        self.app = app
        self.client = app.test_client()
        self.consumer = service_of(app).consumer
        self.state = service_of(app).state

    def get(self, path: str = "/state"):
        return self.client.get(path)

    @property
    def status(self) -> dict[str, Any]:
        return self.get("/status").json

    def first_state(self) -> Any:
        """The state in the first answer that is not 503."""
        answer = eventually(lambda: self._unless_503())
        assert answer.status_code == 200
        return answer.json["state"]

    def _unless_503(self):
        answer = self.get()
        return None if answer.status_code == 503 else answer

    def comes_to(self, state: Any) -> bool:
        return bool(eventually(lambda: self.get().json.get("state") == state))


@pytest.fixture
def serve(bootstrap_servers: str) -> Iterator[Callable[..., Service]]:
    """Start the service on a topic; it is stopped after the test."""
    with contextlib.ExitStack() as services:

        def start(topic: Topic | str, **settings: Any) -> Service:
            name = topic if isinstance(topic, str) else topic.name
            options = {"bootstrap_servers": bootstrap_servers, **settings}
            service = Service(create_app(Settings(topic=name, **options)))
            services.callback(service.consumer.stop, 10)
            return service

        yield start


@pytest.fixture
def cluster(pytestconfig: pytest.Config) -> list[ApacheKafka]:
    """Three brokers for a test to break, which is in the group `cluster`; each topic is on one of
    them, unless it asks for more."""
    if CLUSTER not in pytestconfig.stash:
        pytestconfig.stash[CLUSTER] = _Cluster()
    nodes = pytestconfig.stash[CLUSTER].nodes
    for node in nodes:
        node.restore()
    for node in nodes:
        node.wait_to_see({other.address for other in nodes})
    return nodes


class _Cluster:
    def __init__(self) -> None:
        self._running = contextlib.ExitStack()
        overrides = {"default.replication.factor": "1", "min.insync.replicas": "1"}
        self.nodes = self._running.enter_context(apache_kafka.running_cluster(overrides=overrides))
        self.close = self._running.close


CLUSTER = pytest.StashKey[_Cluster]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: Any) -> Iterator[None]:
    """End the three with the last test that needs them: while nobody asks, they take a tenth of a
    core."""
    try:
        return (yield)
    finally:
        if CLUSTER in item.config.stash and "cluster" not in getattr(nextitem, "fixturenames", ()):
            item.config.stash[CLUSTER].close()
            del item.config.stash[CLUSTER]


@pytest.fixture
def serving(topic: Topic, tmp_path: Path) -> Callable[..., Any]:
    """Run the program on the topic: gunicorn's options, and variables."""

    return functools.partial(following, topic, tmp_path / "output")
