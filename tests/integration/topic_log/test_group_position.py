"""What Kafka's own tools see of an instance: the position of its group, whatever was cut off."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from confluent_kafka import (
    Consumer,
    ElectionType,
    KafkaError,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from dev import apache_kafka
from dev.apache_kafka import ApacheKafka
from tests.support import secure_broker
from tests.support.coordinator import committed
from tests.support.processes import Program, following
from tests.support.topics import Topic, admin_of, new_topic
from tests.support.waiting import eventually

pytestmark = pytest.mark.own_kafka

COMMITTED_SECONDS = 10.0
# a new cluster has to make the topic of the offsets first
FIRST_SECONDS = 30.0
SERVED_SECONDS = 3.0
COORDINATED_ANEW_SECONDS = 30.0
ROUNDS = 3
OFFSETS = TopicPartition("__consumer_offsets", 0)


class Followed:
    """A topic, the program that follows it, and what the broker knows of its group."""

    def __init__(self, topic: Topic, program: Program) -> None:
        self._topic = topic
        self._program = program
        self.sent = 0
        self._reader: Consumer | None = None

    @property
    def status(self) -> dict:
        return self._program.get("/status").json()

    def send(self) -> None:
        """Send one more message, which is served soon."""
        self.sent += 1
        self._topic.send_state(self.sent)
        eventually(self._serves_what_was_sent, within=SERVED_SECONDS)

    def _serves_what_was_sent(self) -> bool:
        return self._program.get().json() == {"state": self.sent}

    def committed(self) -> int | None:
        """The offset that the group is at; None while it has none."""
        if self._reader is None:
            group = {"bootstrap.servers": self._topic.servers, "group.id": self.status["group_id"]}
            self._reader = Consumer(group)
        at = committed(self._reader, self._topic.name)
        if at is None:
            self.close()
            return None
        return at.offset if at.offset >= 0 else None

    def close(self) -> None:
        if self._reader:
            self._reader.close()
        self._reader = None

    def is_seen(self, within: float = COMMITTED_SECONDS) -> None:
        """Kafka's tools see all of what was sent as read."""
        eventually(lambda: self.committed() == self.sent, within)

    def is_back(self) -> bool:
        """Whether it has noticed that the broker was away, and reads again: over a new client, or
        over the same one where the broker was not away for long."""
        status = self.status
        noticed = status["partition_errors"] or status["connections"] > 1
        at = status["partitions"].get("0")
        return bool(noticed and at and at["position"] is not None and at["error"] is None)

    def connections(self) -> int:
        """How many to the broker neither side has closed."""
        port = int(self._topic.servers.rpartition(":")[2])
        return sum(
            connection.status == psutil.CONN_ESTABLISHED and connection.raddr.port == port
            for process in self._program.tree()
            for connection in process.net_connections("tcp")
        )


@contextlib.contextmanager
def followed(topic: Topic, folder: Path, **environ: str) -> Iterator[Followed]:
    with following(topic, folder / "output", **environ) as program:
        eventually(lambda: program.get("/readyz") and program.get("/readyz").status_code == 200)
        with contextlib.closing(Followed(topic, program)) as instance:
            yield instance


def test_is_seen_within_ten_seconds_of_a_message_where_idle_connections_are_cut_off(tmp_path):
    with apache_kafka.running({"connections.max.idle.ms": "2000"}) as kafka:
        topic = new_topic(kafka.address)
        with followed(topic, tmp_path) as instance:
            instance.is_seen(within=FIRST_SECONDS)
            for _ in range(ROUNDS):
                connected = instance.connections()
                eventually(lambda n=connected: instance.connections() < n)
                instance.send()
                instance.is_seen()
            kafka.stop()
            kafka.start()
            eventually(instance.is_back)
            instance.send()
            instance.is_seen()


def test_is_seen_within_ten_seconds_of_a_message_where_sessions_end(tmp_path):
    """They are shorter than the pause between two commits: each one meets a session that ended."""
    mechanisms = {"SASL_PLAINTEXT": "PLAIN", "SASL_SSL": "SCRAM-SHA-512"}
    with (
        secure_broker.running({"connections.max.reauth.ms": "3000"}) as broker,
        contextlib.ExitStack() as running,
    ):
        instances = []
        for listener, mechanism in mechanisms.items():
            topic = new_topic(broker.kafka.address)
            for resource, name in (("topic", topic.name), ("group", "*")):
                broker.allow("alice", resource, name, "describe", "read", "delete")
            alice = {
                "KAFKA_BOOTSTRAP_SERVERS": broker.address(listener),
                "KAFKA_SECURITY_PROTOCOL": listener,
                "KAFKA_SSL_CAFILE": str(broker.ca) if listener.endswith("SSL") else "",
                "KAFKA_SASL_MECHANISM": mechanism,
                "KAFKA_SASL_USERNAME": "alice",
                "KAFKA_SASL_PASSWORD": broker.users["alice"],
            }
            (folder := tmp_path / listener).mkdir()
            instances.append(running.enter_context(followed(topic, folder, **alice)))
        for instance in instances:
            instance.is_seen(within=FIRST_SECONDS)
        for _ in range(ROUNDS):
            for instance in instances:
                instance.send()
            for instance in instances:
                instance.is_seen()


def leader_of(cluster: list[ApacheKafka], topic: Topic) -> ApacheKafka:
    """The leader of its partition 0."""
    return cluster[topic.leader(0) - 1]


def is_led_as_preferred(admin: AdminClient) -> bool:
    """Whether the broker that leads the offsets is the one that is to, which is asked for."""
    (error,) = admin.elect_leaders(ElectionType.PREFERRED, [OFFSETS]).result(10).values()
    return error is None or error.code() == KafkaError.ELECTION_NOT_NEEDED


@pytest.mark.xdist_group("cluster")
@pytest.mark.parametrize("trouble", ["kill", "freeze"])
def test_nobody_waits_for_a_coordinator_that_is_gone_and_the_next_one_is_told(
    cluster, tmp_path, trouble
):
    servers = ",".join(node.address for node in cluster)
    topics = iter(lambda: new_topic(cluster[0].address, replication_factor=1), None)
    # which makes the topic of the offsets
    with followed(next(topics), tmp_path) as instance:
        instance.is_seen(within=FIRST_SECONDS)
    offsets = Topic(OFFSETS.topic, servers)
    admin = admin_of(servers)
    eventually(lambda: is_led_as_preferred(admin))
    coordinator = leader_of(cluster, offsets)
    topic = next(topic for topic in topics if leader_of(cluster, topic) is not coordinator)
    with followed(Topic(topic.name, servers), tmp_path) as instance:
        instance.send()
        instance.is_seen()
        getattr(coordinator, trouble)()
        for _ in range(5):
            instance.send()
        assert instance.status["failures"] == 0
        if trouble == "freeze":  # the client waits for it, request by request
            return
        sent = instance.sent
        deadline = time.monotonic() + COORDINATED_ANEW_SECONDS
        while (instance.committed() or 0) < sent:
            assert time.monotonic() < deadline
            instance.send()
        instance.is_seen()
        assert instance.status["failures"] == 0
        # and back again, from one that is there
        coordinator.kill()
        coordinator.start()
        # a broker whose session ends on a busy machine loses what it leads once more
        eventually(
            lambda: is_led_as_preferred(admin) and leader_of(cluster, offsets) is coordinator
        )
        instance.send()
        instance.is_seen()
        assert instance.status["failures"] == 0
