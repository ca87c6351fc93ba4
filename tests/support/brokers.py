"""Which broker the integration tests talk to."""

from __future__ import annotations

import contextlib
import gc
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import docker
import pytest
from confluent_kafka import libversion
from docker.errors import DockerException
from testcontainers.community.kafka import KafkaContainer

from dev import apache_kafka
from dev.broker import EmbeddedBroker
from tests.support.coordinator import await_coordinator

CONTAINER_IMAGE = "confluentinc/cp-kafka:7.9.0"
CONTAINER_KAFKA = "3.9.0"


@dataclass(frozen=True)
class Broker:
    """A broker that can be had here.

    Attributes:
        title: what the pytest header says.
        running: gives its bootstrap servers for as long as the block.
        is_apache_kafka: whether it can all that a real one can.
    """

    title: str
    running: Callable[[], contextlib.AbstractContextManager[str]]
    is_apache_kafka: bool = True


CHOSEN = pytest.StashKey[Broker]()


def given() -> Broker | None:
    servers = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    if not servers:
        return None
    return Broker(
        f"the one at {servers} (KAFKA_BOOTSTRAP_SERVERS), of a version it does not tell",
        lambda: contextlib.nullcontext(servers),
    )


def container() -> Broker | None:
    with warnings.catch_warnings():
        # docker closes no socket that it could not connect
        warnings.simplefilter("ignore", ResourceWarning)
        answers = _docker_answers()
        gc.collect()
    if not answers:
        return None
    return Broker(f"Apache Kafka {CONTAINER_KAFKA} (testcontainers)", _container_running)


@contextlib.contextmanager
def _container_running() -> Iterator[str]:
    with KafkaContainer(CONTAINER_IMAGE).with_kraft() as kafka:
        yield kafka.get_bootstrap_server()


def _docker_answers() -> bool:
    try:
        docker.from_env(timeout=5).ping()
    except DockerException:
        return False
    return True


def maven() -> Broker | None:
    if not apache_kafka.available():
        return None
    return Broker(f"Apache Kafka {apache_kafka.version()} (Maven)", _maven_running)


@contextlib.contextmanager
def _maven_running() -> Iterator[str]:
    apache_kafka.prepare()
    with apache_kafka.running(apache_kafka.LEFT_ALONE) as kafka:
        await_coordinator(kafka.address)
        yield kafka.address


def embedded() -> Broker:
    return Broker(
        f"embedded, the mock cluster of librdkafka {libversion()[0]}",
        _embedded_running,
        is_apache_kafka=False,
    )


@contextlib.contextmanager
def _embedded_running() -> Iterator[str]:
    broker = EmbeddedBroker()
    yield broker.address


def first_available(only_maven: bool = False) -> Broker:
    if only_maven:
        return maven() or pytest.exit("Apache Kafka of a chosen version needs java and mvn")
    return given() or container() or maven() or embedded()
