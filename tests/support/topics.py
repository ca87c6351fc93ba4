"""Topics of a test's own."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, NewTopic

from tests.support.brokers import CHOSEN
from tests.support.waiting import eventually


class Topic:
    """A topic of the test's own, and the means to write to it."""

    def __init__(self, name: str, servers: str) -> None:
        self.name = name
        self.servers = servers
        self.producer = self.new_producer()

    @property
    def environ(self) -> dict[str, str]:
        """The settings that name it."""
        return {"KAFKA_TOPIC": self.name, "KAFKA_BOOTSTRAP_SERVERS": self.servers}

    def new_producer(self, **config: Any) -> Producer:
        return Producer({"bootstrap.servers": self.servers, "linger.ms": 0, **config})

    def new_transactional_producer(self) -> Producer:
        producer = self.new_producer(**{"transactional.id": self.name})
        producer.init_transactions()
        return producer

    def leaders(self) -> dict[int, int]:
        """By partition the id of the broker that leads it, -1 without one."""
        metadata = AdminClient({"bootstrap.servers": self.servers}).list_topics(
            self.name, timeout=10
        )
        return {n: at.leader for n, at in metadata.topics[self.name].partitions.items()}

    def leader(self, partition: int) -> int:
        """The id of the broker that leads it, as soon as one does and is known to: of a new topic
        a broker may have heard nothing yet."""
        return eventually(lambda: max(self.leaders().get(partition, 0), 0))

    def send(self, *values: bytes | None, producer: Producer | None = None, **options: Any) -> None:
        """Send and wait for the acknowledgements; to partition 0 unless options say otherwise."""
        producer = producer or self.producer
        failures: list[KafkaError] = []

        def note(error: KafkaError | None, _: Message) -> None:
            if error:
                failures.append(error)

        for value in values:
            producer.produce(
                self.name,
                value,
                on_delivery=note,
                **{"partition": 0, **options},
            )
            producer.poll(0)
        assert producer.flush(30) == 0
        assert failures == []

    def send_state(self, *states: Any, **options: Any) -> None:
        self.send(*(json.dumps({"state": state}).encode() for state in states), **options)


def admin_of(servers: str) -> AdminClient:
    """One that knows a controller.

    A broker that was frozen, or is just back, may know none. librdkafka then waits for one, and does
    not ask again.
    """
    admin = AdminClient({"bootstrap.servers": servers, "log_level": 0})
    eventually(lambda: admin.list_topics(timeout=10).controller_id >= 0)
    return admin


def new_topic(servers: str, name: str = "", **options: Any) -> Topic:
    """Create a topic of one partition, unless `options` say otherwise."""
    name = name or f"test-{uuid.uuid4().hex}"
    admin = admin_of(servers)
    admin.create_topics([NewTopic(name, **{"num_partitions": 1, **options})])[name].result(30)
    return Topic(name, servers)


def offsets_of(topic: Topic) -> tuple[int, int]:
    """Where partition 0 begins and ends."""
    reader = Consumer({"bootstrap.servers": topic.servers, "group.id": "unused"})
    try:
        return reader.get_watermark_offsets(TopicPartition(topic.name, 0), timeout=10)
    finally:
        reader.close()


def read_offsets(topic: Topic) -> list[int]:
    """The offsets that partition 0 still holds messages at."""
    reader = Consumer(
        {"bootstrap.servers": topic.servers, "group.id": "unused", "enable.partition.eof": True}
    )
    reader.assign([TopicPartition(topic.name, 0, OFFSET_BEGINNING)])
    offsets: list[int] = []
    try:
        while (message := reader.poll(10)) is not None and not (error := message.error()):
            offsets.append(message.offset() or 0)
        assert message is not None, f"no more than {offsets}"
        assert error
        assert error.code() == KafkaError._PARTITION_EOF, error
    finally:
        reader.close()
    return offsets


def delete_before(admin: AdminClient, topic: Topic, offset: int, partition: int = 0) -> None:
    upto = TopicPartition(topic.name, partition, offset)
    admin.delete_records([upto])[upto].result(30)


@pytest.fixture(scope="session")
def admin(bootstrap_servers: str) -> AdminClient:
    return admin_of(bootstrap_servers)


@pytest.fixture
def groups(admin: AdminClient) -> Callable[[], set[str]]:
    """Ask the broker for the consumer groups it has."""
    return lambda: {group.group_id for group in admin.list_consumer_groups().result(10).valid}


@pytest.fixture
def topic_name() -> str:
    """A name that no topic has."""
    return f"test-{uuid.uuid4().hex}"


@pytest.fixture(scope="session")
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
