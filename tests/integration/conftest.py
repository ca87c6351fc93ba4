from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from app import create_app
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
        self.consumer = app.extensions["consumer"]

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


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[list[ApacheKafka]]:
    overrides = {"default.replication.factor": "1", "min.insync.replicas": "1"}
    with apache_kafka.running_cluster(overrides=overrides) as nodes:
        yield nodes


@pytest.fixture
def cluster(shared_cluster: list[ApacheKafka]) -> Iterator[list[ApacheKafka]]:
    """Three brokers for a test to break, which is in the group `cluster`; each topic is on one of
    them, unless it asks for more. The next test gets them whole."""
    yield shared_cluster
    for node in shared_cluster:
        node.restore()
    for node in shared_cluster:
        node.wait_to_see({other.address for other in shared_cluster})


@pytest.fixture
def serving(topic: Topic, tmp_path: Path) -> Callable[..., Any]:
    """Run the program on the topic: gunicorn's options, and variables."""

    return functools.partial(following, topic, tmp_path / "output")
