"""Lookups over a connection of their own: the cluster, the topic, one message."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError, OffsetOutOfRangeError

from app.topic_log.client import explain
from app.topic_log.connectivity import ask_each
from app.topic_log.consumers import open_consumer
from app.topic_log.errors import TopicLogError, Unreachable
from app.topic_log.installed import adapter
from app.topic_log.producer import Outgoing

if TYPE_CHECKING:
    from app.settings import Settings


READ_SECONDS = 10.0
STEP_MS = 200


class Cluster(NamedTuple):
    """What the cluster says of itself and of the topic.

    Attributes:
        brokers: the host:port that each is advertised at, by number.
        partitions: of the topic; none if it does not exist, or is hidden by ACLs.
        trouble: why the brokers could not be asked for the topic; None if they could.
    """

    brokers: dict[int, str]
    partitions: frozenset[int]
    trouble: str | None


def ask_bootstrap_servers(settings: Settings) -> Iterator[tuple[str, Unreachable | None]]:
    """Ask each; gives why it does not answer, None if it does.

    Raises:
        OSError: a file of certificates or keys cannot be read.
    """
    return ask_each(settings, settings.bootstrap_servers.split(","), 0)


def ask_brokers(settings: Settings, cluster: Cluster) -> dict[int, Unreachable | None]:
    """Ask each at its advertised address; gives by number why it does not answer."""
    troubles = dict(ask_each(settings, [*cluster.brokers.values()], 0))
    return {number: troubles[server] for number, server in cluster.brokers.items()}


@contextlib.contextmanager
def _consumer(settings: Settings) -> Iterator[KafkaConsumer]:
    consumer = open_consumer(settings)
    try:
        yield consumer
    finally:
        consumer.close(autocommit=False)


def describe_cluster(settings: Settings) -> Cluster:
    """Ask for the brokers and the topic.

    Raises:
        KafkaError: the cluster does not answer, or refuses this client.
    """
    trouble = None
    partitions: frozenset[int] = frozenset()
    with _consumer(settings) as consumer:
        try:
            if settings.topic in consumer.topics():
                partitions = frozenset(consumer.partitions_for_topic(settings.topic) or ())
        except KafkaError as error:
            trouble = explain(error, settings)
        brokers = {
            adapter.broker_number(broker): f"{broker.host}:{broker.port}"
            for broker in consumer._client.cluster.brokers()
        }
    return Cluster(brokers, partitions, trouble)


def read_message(settings: Settings, partition: int, offset: int) -> Outgoing:
    """Read the message at a position, to be sent to its partition once more.

    Raises:
        TopicLogError: there is none.
        KafkaError: the log cannot be read.
    """
    place = TopicPartition(settings.topic, partition)
    missing = TopicLogError(
        f"partition {partition} of {settings.topic} has no message at offset {offset}"
    )
    with _consumer(settings) as consumer:
        partitions = consumer.partitions_for_topic(settings.topic)
        if not partitions:
            raise TopicLogError(f"there is no topic {settings.topic}, or the ACLs hide it")
        if partition not in partitions:
            raise TopicLogError(
                f"{settings.topic} has no partition {partition}: it has {len(partitions)}, "
                "counted from 0"
            )
        consumer.assign([place])
        consumer.seek(place, offset)
        try:
            record = _first_record(consumer)
        except OffsetOutOfRangeError:
            raise missing from None
    if record is None or record.offset != offset:  # a marker, or compacted away
        raise missing
    return Outgoing(record.value, record.key, record.headers, partition)


def _first_record(consumer: KafkaConsumer) -> Any:
    for _ in range(int(READ_SECONDS * 1000 / STEP_MS)):
        for records in consumer.poll(timeout_ms=STEP_MS, max_records=1).values():
            return records[0]
    return None
