from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from flask import Flask

from app import create_app
from app.settings import Settings
from tests.brokers import CHOSEN
from tests.waiting import eventually


class Topic:
    """A topic of the test's own, and the means to write to it."""

    def __init__(self, name: str, servers: str) -> None:
        self.name = name
        self.servers = servers
        self.producer = self.new_producer()

    def new_producer(self, **config: Any) -> Producer:
        return Producer({"bootstrap.servers": self.servers, "linger.ms": 0, **config})

    def send(self, *values: bytes | None, producer: Producer | None = None, **options: Any) -> None:
        """Send and wait for the acknowledgements; to partition 0 unless options say otherwise."""
        producer = producer or self.producer
        failures = []
        for value in values:
            producer.produce(
                self.name,
                value,
                on_delivery=lambda error, _: error and failures.append(error),
                **{"partition": 0, **options},
            )
            producer.poll(0)
        assert producer.flush(30) == 0
        assert failures == []

    def send_state(self, *states: Any, **options: Any) -> None:
        self.send(*(json.dumps({"state": state}).encode() for state in states), **options)


@pytest.fixture
def admin(bootstrap_servers: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": bootstrap_servers})


@pytest.fixture
def groups(admin: AdminClient) -> Callable[[], set[str]]:
    """Ask the broker for the consumer groups it has."""
    return lambda: {group.group_id for group in admin.list_consumer_groups().result(10).valid}


@pytest.fixture
def topic_name() -> str:
    """A name that no topic has."""
    return f"test-{uuid.uuid4().hex}"


@pytest.fixture
def make_topic(
    pytestconfig: pytest.Config, bootstrap_servers: str, admin: AdminClient
) -> Callable[..., Topic]:
    """Create a topic: `partitions` (the embedded broker always makes four) and its `config`."""

    def make(partitions: int = 1, **config: str) -> Topic:
        name = f"test-{uuid.uuid4().hex}"
        if pytestconfig.stash[CHOSEN].is_apache_kafka:
            new = NewTopic(
                name, partitions, config={k.replace("_", "."): v for k, v in config.items()}
            )
            admin.create_topics([new])[name].result(30)
        # on the embedded broker a topic appears when it is asked for
        eventually(lambda: admin.list_topics(name, timeout=10).topics[name].partitions)
        return Topic(name, bootstrap_servers)

    return make


@pytest.fixture
def topic(make_topic: Callable[..., Topic]) -> Topic:
    return make_topic()


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
