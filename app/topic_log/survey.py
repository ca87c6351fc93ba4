"""What a cluster says of itself and of one topic, for those who look before they start."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from kafka import KafkaConsumer
from kafka.errors import KafkaError

from app.topic_log.client import connection_options, explain, open_client
from app.topic_log.connectivity import ask_each, reaching
from app.topic_log.installed import adapter

if TYPE_CHECKING:
    from app.settings import Settings


class Cluster(NamedTuple):
    """
    Attributes:
        brokers: the host:port that each is advertised at, by number.
        partitions: of the topic; none if it does not exist, or is hidden by ACLs.
        trouble: why the brokers could not be asked for the topic; None if they could.
    """

    brokers: dict[int, str]
    partitions: frozenset[int]
    trouble: str | None


def ask_bootstrap_servers(settings: Settings) -> Iterator[tuple[str, str | None]]:
    """Each, and why it does not answer; None if it does.

    Raises:
        OSError: a file of certificates or keys cannot be read.
    """
    return ask_each(settings, settings.bootstrap_servers.split(","), 0)


def ask_brokers(settings: Settings, cluster: Cluster) -> dict[int, str | None]:
    """Why a broker does not answer at the address that it is advertised at, by number."""
    troubles = dict(ask_each(settings, [*cluster.brokers.values()], 0))
    return {number: troubles[server] for number, server in cluster.brokers.items()}


def look_at(settings: Settings) -> Cluster:
    """
    Raises:
        KafkaError: the cluster does not answer, or refuses this client.
    """
    with reaching(settings) as server:
        consumer = open_client(
            KafkaConsumer,
            **connection_options(settings, server),
            enable_auto_commit=False,
        )
    trouble = None
    partitions: frozenset[int] = frozenset()
    try:
        if settings.topic in consumer.topics():
            partitions = frozenset(consumer.partitions_for_topic(settings.topic) or ())
    except KafkaError as error:
        trouble = explain(error, settings)
    finally:
        brokers = {
            adapter.broker_number(broker): f"{broker.host}:{broker.port}"
            for broker in consumer._client.cluster.brokers()
        }
        consumer.close(autocommit=False)
    return Cluster(brokers, partitions, trouble)
