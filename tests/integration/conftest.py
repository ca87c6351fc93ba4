from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app import create_app
from app.settings import Settings
from dev import apache_kafka
from dev.apache_kafka import ApacheKafka
from tests.support.application import Service
from tests.support.processes import following
from tests.support.topics import Topic


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
