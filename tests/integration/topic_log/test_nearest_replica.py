"""Messages are fetched from the replica that is nearest (KIP-392)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from app.topic_log.answers import AskRecords
from app.topic_log.exchange import Exchange
from dev import apache_kafka
from dev.apache_kafka import ApacheKafka
from tests.support.topics import Topic, new_topic
from tests.support.waiting import eventually

pytestmark = [pytest.mark.own_kafka, pytest.mark.xdist_group("nearest_replica")]

NEAREST = "org.apache.kafka.common.replica.RackAwareReplicaSelector"


@pytest.fixture(scope="module")
def nodes() -> Iterator[list[ApacheKafka]]:
    """Each is in a rack of its own, and has every partition."""
    with apache_kafka.running_cluster(overrides={"replica.selector.class": NEAREST}) as nodes:
        yield nodes


@pytest.fixture
def topic(nodes) -> Topic:
    return new_topic(nodes[0].address, replication_factor=3)


@pytest.fixture
def fetched_from(monkeypatch) -> list[int]:
    """The brokers that are asked for records, as they are."""
    brokers: list[int] = []
    send = Exchange._send_to

    def note(exchange, node, asks):
        if any(isinstance(ask, AskRecords) for ask in asks.values()):
            brokers.append(node)
        send(exchange, node, asks)

    monkeypatch.setattr(Exchange, "_send_to", note)
    return brokers


def a_follower(topic: Topic) -> int:
    return topic.leader(0) % 3 + 1


def settles_on(fetched_from: list[int], broker: int) -> None:
    eventually(lambda: fetched_from[-3:] == [broker] * 3)


def is_asked_again(fetched_from: list[int], broker: int) -> None:
    before = len(fetched_from)
    eventually(lambda: broker in fetched_from[before:])


def test_without_a_rack_the_leader_is_asked(topic, serve, fetched_from):
    topic.send_state(1)
    service = serve(topic, bootstrap_servers=topic.servers)
    assert service.first_state() == 1
    settles_on(fetched_from, topic.leader(0))
    assert set(fetched_from) == {topic.leader(0)}


def test_the_replica_in_the_same_rack_is_asked(topic, serve, fetched_from):
    topic.send_state(1)
    near = a_follower(topic)
    service = serve(topic, bootstrap_servers=topic.servers, client_rack=f"rack-{near}")
    assert service.first_state() == 1
    settles_on(fetched_from, near)
    topic.send_state(2)
    service.comes_to(2)
    assert service.status["partition_errors"] == {}


def test_where_the_nearest_dies_the_leader_is_asked_and_the_nearest_again_when_it_is_back(
    nodes, topic, serve, fetched_from
):
    near = a_follower(topic)
    servers = nodes[topic.leader(0) - 1].address
    service = serve(
        Topic(topic.name, servers),
        bootstrap_servers=servers,
        client_rack=f"rack-{near}",
        metadata_max_age_ms=1000,
    )
    service.first_state()
    is_asked_again(fetched_from, near)
    nodes[near - 1].kill()
    topic = Topic(topic.name, servers)
    topic.send_state("without it")
    service.comes_to("without it")
    assert service.status["partition_errors"] == {}
    nodes[near - 1].start()
    is_asked_again(fetched_from, near)
    topic.send_state("with it")
    service.comes_to("with it")
