"""What keeps one partition from being read keeps none of the others from it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka.admin import AdminClient

from app import create_app
from app.settings import Settings
from dev.apache_kafka import ApacheKafka
from tests.support.application import Service
from tests.support.topics import Topic, new_topic
from tests.support.waiting import eventually

pytestmark = [pytest.mark.own_kafka, pytest.mark.xdist_group("cluster")]

NOW = int(time.time() * 1000)
SOON_SECONDS = 1.0
FAILOVER_SECONDS = 10.0
# an election, and what a start waits for one
READY_SECONDS = 15.0


@pytest.fixture
def servers(cluster) -> str:
    return ",".join(node.address for node in cluster)


@pytest.fixture
def topic(servers) -> Topic:
    return new_topic(servers, num_partitions=3, replication_factor=1)


@pytest.fixture
def start(topic) -> Iterator[Callable[..., Service]]:
    with contextlib.ExitStack() as services:

        def start(**settings: object) -> Service:
            options = {"topic": topic.name, "bootstrap_servers": topic.servers, **settings}
            service = Service(create_app(Settings(**options)))
            services.callback(service.consumer.stop, 10)
            return service

        yield start


@pytest.fixture
def victim(topic, cluster) -> tuple[int, ApacheKafka]:
    """A partition, and the only broker that has it, and that leads no other one of the topic."""
    # a broker tells of the partitions of a new topic as it learns of them
    led: dict[int, int] = {}

    def all_are_led() -> bool:
        led.update(topic.leaders())
        return len(set(led.values()) - {-1}) == 3

    eventually(all_are_led)
    return 1, cluster[led[1] - 1]


def send(topic: Topic, state: object, partition: int, timestamp: int) -> None:
    producer = topic.new_producer()  # which has no connection to a broker that is gone
    topic.send_state(state, partition=partition, timestamp=timestamp, producer=producer)


def without_leader(service: Service, partition: int) -> bool:
    error = service.status["partitions"].get(str(partition), {}).get("error")
    return bool(error) and error.startswith("LEADER_NOT_AVAILABLE: it has no leader")


def assert_read_to(service: Service, partition: int, end: int) -> None:
    """Not by its lag, which is none as soon as the first of several messages is read."""
    eventually(lambda: service.status["partitions"][str(partition)]["position"] == end)
    at = service.status["partitions"][str(partition)]
    assert (at["end"], at["lag"]) == (end, 0)


def tried(status: dict) -> int:
    return status["partition_errors"]["LEADER_NOT_AVAILABLE"]


def test_a_start_serves_the_newest_of_what_can_be_read_and_says_what_cannot(
    topic, victim, start, caplog
):
    send(topic, "elsewhere", 0, NOW)
    send(topic, "newest", 1, NOW + 1)
    victim[1].stop()
    eventually(lambda: topic.leaders()[1] == -1, within=READY_SECONDS)
    service = start()
    reasons = set()

    def is_ready() -> bool:
        answer = service.get("/readyz")
        reasons.add(answer.json.get("detail"))
        return answer.status_code == 200

    eventually(is_ready, within=READY_SECONDS)
    assert service.first_state() == "elsewhere"
    assert any("partition 1 cannot be read: LEADER_NOT_AVAILABLE" in str(r) for r in reasons)
    assert without_leader(service, 1)
    assert service.status["partitions"]["1"]["position"] is None
    assert tried(service.status) > 0
    eventually(lambda: service.status["stale_seconds"] > 0)
    assert service.get("/readyz").json["without"] == {
        "1": service.status["partitions"]["1"]["error"]
    }
    assert any("Cannot read partition 1" in line for line in caplog.messages)
    for number in range(3):
        send(topic, number, 2, NOW + 2 + number)
        eventually(lambda n=number: service.get().json == {"state": n}, SOON_SECONDS)
    before, began = service.status, time.monotonic()
    eventually(lambda: time.monotonic() > began + 2)
    after = service.status
    assert after["fetches"] - before["fetches"] < 20
    assert tried(after) - tried(before) < 5
    victim[1].start()
    send(topic, "back", 1, NOW + 100)
    assert service.comes_to("back")
    eventually(lambda: service.status["partitions"]["1"]["error"] is None)
    eventually(lambda: service.status["stale_seconds"] == 0)
    assert "without" not in service.get("/readyz").json


def test_the_initial_value_is_not_served_where_a_partition_cannot_be_read(topic, victim, start):
    send(topic, "there", 1, NOW)
    victim[1].stop()
    eventually(lambda: topic.leaders()[1] == -1, within=READY_SECONDS)
    service = start()
    eventually(lambda: without_leader(service, 1), within=READY_SECONDS)
    eventually(lambda: service.status["partitions"]["0"]["position"] == 0)
    assert service.get().status_code == 503
    assert "partition 1 cannot be read: LEADER_NOT_AVAILABLE" in service.get().json["detail"]
    victim[1].start()
    assert service.first_state() == "there"


def test_who_follows_keeps_the_state_of_a_partition_that_lost_its_leader(topic, victim, start):
    send(topic, "elsewhere", 0, NOW)
    service = start()
    send(topic, "newest", 1, NOW + 50)
    assert service.comes_to("newest")
    victim[1].stop()
    eventually(lambda: without_leader(service, 1), within=READY_SECONDS)
    send(topic, "older", 2, NOW + 40)
    eventually(lambda: service.status["partitions"]["2"]["position"] == 1)
    assert service.get().json == {"state": "newest"}
    send(topic, "newer", 2, NOW + 60)
    eventually(lambda: service.get().json == {"state": "newer"}, SOON_SECONDS)
    # what has been read of it has been
    assert service.get("/state?min_offset=1:0").status_code == 200
    assert service.get("/state?min_offset=1:1").status_code == 503
    assert int(service.get().headers["X-State-Stale"]) > 3
    victim[1].start()
    send(topic, "back", 1, NOW + 70)
    assert service.comes_to("back")


def test_a_frozen_leader_of_one_partition_holds_no_other_up(topic, victim, start):
    # asked so often, metadata is asked of the frozen one too
    service = start(metadata_max_age_ms=100)
    send(topic, "before", 0, NOW)
    assert service.comes_to("before")
    victim[1].freeze()
    began = time.monotonic()
    number = 0
    while time.monotonic() < began + 12:
        number += 1
        send(topic, number, number % 2 * 2, NOW + number)
        eventually(lambda n=number: service.get().json == {"state": n}, SOON_SECONDS)
    eventually(lambda: service.status["partitions"]["1"]["error"])
    assert service.status["failures"] == 0
    victim[1].thaw()
    send(topic, "thawed", 1, NOW + 1000)
    assert service.comes_to("thawed")
    eventually(lambda: service.status["partitions"]["1"]["error"] is None)


def test_a_partition_that_was_lost_and_has_grown_to_the_same_end_is_read_anew(topic, victim, start):
    partition, broker = victim
    send(topic, "elsewhere", 0, NOW)
    service = start()
    for number in range(3):
        send(topic, f"lost {number}", partition, NOW + number)
    assert service.comes_to("lost 2")
    broker.stop()
    broker.lose(topic.name, partition)
    broker.start()
    send(topic, "new", partition, NOW + 10)
    topic.send(b"invalid", b"invalid", partition=partition, producer=topic.new_producer())
    assert service.comes_to("new")
    assert_read_to(service, partition, 3)
    assert service.status["failures"] == 0


def test_what_an_unclean_election_has_cut_off_is_not_served_though_the_end_is_the_same(
    cluster, servers, start
):
    topic = new_topic(
        servers,
        replication_factor=2,
        config={"unclean.leader.election.enable": "true", "min.insync.replicas": "1"},
    )
    send(topic, "kept", 0, NOW)
    service = start(topic=topic.name)
    assert service.comes_to("kept")
    metadata = AdminClient({"bootstrap.servers": servers}).list_topics(topic.name, timeout=10)
    at = metadata.topics[topic.name].partitions[0]
    leader = cluster[at.leader - 1]
    (follower,) = (cluster[node - 1] for node in at.replicas if node != at.leader)
    follower.stop()
    send(topic, "cut off", 0, NOW + 1)
    send(topic, "cut off too", 0, NOW + 2)
    assert service.comes_to("cut off too")
    leader.stop()
    follower.start()
    topic.send(b"invalid", b"invalid", producer=topic.new_producer())
    assert service.comes_to("kept")
    assert_read_to(service, 0, 3)


def test_moves_on_when_the_leader_is_killed_under_load_and_applies_nothing_twice(
    cluster, servers, start
):
    topic = new_topic(servers, replication_factor=3, config={"min.insync.replicas": "2"})
    published = []
    service = start(topic=topic.name)
    publish = service.state.publish

    def note(snapshot, positions) -> None:
        if published[-1:] != [snapshot.offset]:  # and not only the positions are news
            published.append(snapshot.offset)
        publish(snapshot, positions)

    service.state.publish = note
    stopping = threading.Event()

    def load() -> None:
        producer = topic.new_producer(**{"acks": "all", "enable.idempotence": True})
        number = 0
        while not stopping.wait(0.01):
            number += 1
            producer.produce(topic.name, b'{"state":%d}' % number, partition=0)
            producer.poll(0)
        producer.flush(30)

    loading = threading.Thread(target=load)
    loading.start()
    try:
        eventually(lambda: len(published) > 10)
        leader = cluster[topic.leader(0) - 1]
        leader.kill()
        reached = published[-1]
        eventually(lambda: published[-1] > reached + 100, within=FAILOVER_SECONDS)
    finally:
        stopping.set()
        loading.join()
    topic.send_state("last", producer=topic.new_producer())
    assert service.comes_to("last")
    service.consumer.stop(10)  # nothing more is published
    offsets = [offset for offset in published if offset is not None]
    assert offsets == sorted(set(offsets))


def test_follows_the_other_partitions_while_the_only_broker_of_one_is_dead(cluster, topic, start):
    service = start()
    topic.send_state("before", partition=0)
    assert service.comes_to("before")
    leaders = {partition: node - 1 for partition, node in topic.leaders().items()}
    partition = next(n for n, leader in leaders.items() if leader != leaders[0])
    cluster[leaders[0]].kill()
    for number in range(10):
        topic.send_state(number, partition=partition)
        eventually(lambda n=number: service.get().json == {"state": n}, FAILOVER_SECONDS)
