"""What is served stays the best truth known, whatever happens to the brokers."""

from __future__ import annotations

import threading
import time

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from app import create_app
from app.settings import Settings
from dev import apache_kafka
from dev.apache_kafka import ApacheKafka
from dev.broker import forwarding
from tests.support.application import Service
from tests.support.processes import Program, assert_all_ended, copy_program, following, free_port
from tests.support.topics import Topic, admin_of, new_topic
from tests.support.waiting import eventually

pytestmark = [pytest.mark.own_kafka, pytest.mark.xdist_group("brokers_in_trouble")]

RETURN_SECONDS = 5.0
AWAY_SECONDS = 8.0
# the longest of all time-outs, where it is set to this
REQUEST_SECONDS = 5
CORE_SHARE = 0.05
FEW_LINES = 8


@pytest.fixture(scope="module")
def shared_kafka():
    with apache_kafka.running() as kafka:
        yield kafka


@pytest.fixture
def kafka(shared_kafka):
    """A broker to break, whole whatever the test before did."""
    shared_kafka.restore()
    return shared_kafka


@pytest.fixture
def topic(kafka) -> Topic:
    def created() -> Topic | None:
        try:
            return new_topic(kafka.address)
        except KafkaException as error:
            # a controller that was frozen with its broker finds only later that this one has been
            # silent for too long, and takes a moment to let it in again
            if error.args[0].code() == KafkaError.INVALID_REPLICATION_FACTOR:
                return None
            raise

    return eventually(created)


@pytest.fixture
def serve(tmp_path):
    def serve(topic: Topic, servers: str = "", **environ: str):
        environ["KAFKA_BOOTSTRAP_SERVERS"] = servers or topic.servers
        return following(topic, tmp_path / "output", **environ)

    return serve


class Watched:
    """A program that goes on to serve one state while its broker is away, and makes no fuss."""

    def __init__(self, program: Program, state: object) -> None:
        self._program = program
        self._state = state

    def __enter__(self) -> None:
        self._worker = self._program.tree()[1]
        self._lines = len(self._program.told)
        self._cpu = sum(self._worker.cpu_times()[:2])
        self._began = time.monotonic()

    def __exit__(self, *raised: object) -> None:
        seconds = time.monotonic() - self._began
        assert self._program.get("/readyz").status_code == 200
        assert self._program.get("/healthz").status_code == 200
        assert self._program.get().json() == {"state": self._state}
        lines = self._program.told[self._lines :]
        assert len(lines) <= FEW_LINES, "\n".join(lines)
        assert sum(self._worker.cpu_times()[:2]) - self._cpu <= CORE_SHARE * seconds


def wait_for_failure(program: Program, reason: str) -> None:
    """By its log: to ask it would cost it more than what is measured."""
    eventually(
        lambda: any("Not following" in line and reason in line for line in program.told), within=60
    )


def has_committed(program: Program, kafka: ApacheKafka) -> bool:
    """Which opens its second client: what happens then happens to both."""
    admin = admin_of(kafka.address)
    groups = admin.list_consumer_groups().result(10)
    own = program.get("/status").json()["group_id"]
    return own in {group.group_id for group in groups.valid}


def assert_current_again(program: Program, topic: Topic, state: object) -> None:
    """It follows within the promised time of the broker's return, which is now."""
    deadline = time.monotonic() + RETURN_SECONDS
    topic.send_state(state, producer=topic.new_producer())
    eventually(lambda: program.get().json() == {"state": state}, within=deadline - time.monotonic())


def test_serves_at_once_without_a_broker_and_is_true_soon_after_it_arrives(kafka, topic, serve):
    topic.send_state("kept")
    kafka.stop()
    with serve(topic) as program:
        assert eventually(lambda: program.get("/healthz"), within=3).status_code == 200
        expected = f"no broker can be reached: {kafka.address}: connection refused"
        for path in ("/readyz", "/state"):
            assert program.get(path).status_code == 503
            assert program.get(path).json()["detail"] == expected
        kafka.start()
        eventually(lambda: program.get().json() == {"state": "kept"}, within=RETURN_SECONDS)


def test_serves_on_while_the_broker_is_killed_and_restarted(kafka, topic, serve):
    topic.send_state("before")
    with serve(topic) as program:
        program.comes_to("before")
        eventually(lambda: has_committed(program, kafka))
        with Watched(program, "before"):
            kafka.kill()
            wait_for_failure(program, "connection refused")
            threading.Event().wait(AWAY_SECONDS)  # what it costs shows only in time
        kafka.start()
        assert_current_again(program, topic, "after")


def test_serves_on_while_the_broker_is_frozen_for_longer_than_every_time_out(kafka, topic, serve):
    topic.send_state("before")
    with serve(topic, KAFKA_REQUEST_TIMEOUT_MS=str(REQUEST_SECONDS * 1000)) as program:
        program.comes_to("before")
        with Watched(program, "before"):
            kafka.freeze()
            threading.Event().wait(REQUEST_SECONDS + 1)
            assert int(program.get().headers["X-State-Stale"]) in range(4, 9)
            wait_for_failure(program, "no answer within")
        kafka.thaw()
        assert_current_again(program, topic, "after")
        eventually(lambda: "X-State-Stale" not in program.get().headers)


def test_is_not_ready_once_it_is_staler_than_it_may_be_and_serves_on(kafka, topic, serve):
    topic.send_state("before")
    with serve(topic, STATE_MAX_STALE_SECONDS="1") as program:
        program.comes_to("before")
        kafka.freeze()
        eventually(lambda: program.get("/readyz").status_code == 503)
        assert "STATE_MAX_STALE_SECONDS is 1" in program.get("/readyz").json()["detail"]
        assert program.get().json() == {"state": "before"}
        assert program.get("/status").json()["stale_seconds"] > 1
        kafka.thaw()
        eventually(lambda: program.get("/readyz").status_code == 200)


def test_stops_within_five_seconds_while_the_broker_is_frozen(kafka, topic, serve):
    topic.send_state("before")
    with serve(topic) as program:
        program.comes_to("before")
        processes = program.tree()
        kafka.freeze()
        program.process.terminate()
        program.process.wait(5)
        assert_all_ended(processes)
        assert "Traceback" not in program.output


@pytest.mark.parametrize("count", [0, 1, 3, 5], ids="and has {} messages then".format)
def test_keeps_the_state_until_the_broker_that_lost_its_disk_has_a_message(
    kafka, topic, serve, count
):
    topic.send_state("old", "older", "the last")
    with serve(topic) as program:
        program.comes_to("the last")
        tag = program.get().headers["ETag"]
        kafka.kill()
        kafka.wipe()
        kafka.start()
        new = Topic(topic.name, topic.servers)
        if count:
            eventually(lambda: admin_sees(kafka, topic.name))
            new.send_state(*range(1, count + 1))
            eventually(lambda: program.get().json() == {"state": count}, within=RETURN_SECONDS)
            assert program.get().headers["ETag"] != tag
        else:
            eventually(lambda: program.get("/status").json()["connections"] == 2)
            assert program.get().json() == {"state": "the last"}
            new.send_state("new")
            program.comes_to("new")


def admin_sees(kafka: ApacheKafka, name: str) -> bool:
    return name in AdminClient({"bootstrap.servers": kafka.address}).list_topics(timeout=10).topics


def test_finds_the_broker_at_its_new_port_behind_the_same_bootstrap_name(kafka, topic, serve):
    topic.send_state("before")
    port = free_port()
    with serve(topic, f"localhost:{port}") as program:
        with forwarding(port, kafka.address):
            program.comes_to("before")
            eventually(lambda: has_committed(program, kafka))
            kafka.stop()
        kafka.move()
        kafka.start()
        with forwarding(port, kafka.address):
            assert_current_again(program, Topic(topic.name, kafka.address), "after")


def test_a_lost_broker_leaves_no_files_behind(kafka, topic, tmp_path):
    copy_program(tmp_path)
    with (tmp_path / "wsgi.py").open("a") as wsgi:
        wsgi.write("import gc\ngc.disable()  # which would be in time by chance\n")
    with following(topic, tmp_path / "output", cwd=tmp_path) as program:
        program.comes_to(0)
        worker = program.tree()[1]
        files = worker.num_fds()
        kafka.kill()
        eventually(lambda: program.get("/status").json()["failures"] > 2)
        eventually(lambda: worker.num_fds() <= files, within=1)  # but for that of the answer


def test_an_invalid_message_is_counted_once_however_often_it_is_read(kafka, topic, serving):
    with serving() as program:
        program.comes_to(0)
        topic.send(b"junk")
        invalid = {"json": 1}
        eventually(lambda: program.get("/status").json()["invalid_messages"] == invalid)
        for _ in range(2):
            connections = program.get("/status").json()["connections"]
            kafka.kill()
            kafka.start()
            eventually(lambda n=connections: program.get("/status").json()["connections"] > n)
        topic.send_state("after")
        program.comes_to("after")
        assert program.get("/status").json()["invalid_messages"] == invalid
        assert len(program.get("/state/history").json()["refused"]) == 1


@pytest.mark.parametrize("count", [1, 3, 5], ids="of {} messages".format)
def test_follows_the_new_topic_after_it_is_deleted_and_created_again(kafka, topic, serve, count):
    topic.send_state("old", "older", "the last")
    admin = admin_of(kafka.address)
    with serve(topic) as program:
        program.comes_to("the last")
        tag = program.get().headers["ETag"]
        admin.delete_topics([topic.name])[topic.name].result(30)
        # the service itself, or this: whoever is first
        admin.create_topics([NewTopic(topic.name, 1)])[topic.name].exception(30)
        new = Topic(topic.name, topic.servers)
        new.send_state(*range(1, count + 1))
        eventually(lambda: program.get().json() == {"state": count}, within=RETURN_SECONDS)
        assert program.get().headers["ETag"] != tag


def test_tells_a_topic_created_again_with_the_same_messages_by_its_etag(kafka, topic, serve):
    now = int(time.time() * 1000)
    topic.send_state("same", timestamp=now)
    admin = admin_of(kafka.address)
    with serve(topic) as program:
        program.comes_to("same")
        tag = program.get().headers["ETag"]
        admin.delete_topics([topic.name])[topic.name].result(30)
        admin.create_topics([NewTopic(topic.name, 1)])[topic.name].exception(30)
        Topic(topic.name, topic.servers).send_state("same", timestamp=now)
        eventually(lambda: program.get().headers["ETag"] != tag, within=RETURN_SECONDS)
        assert program.get().json() == {"state": "same"}


def test_waits_for_a_deleted_topic_that_it_may_not_create(kafka, topic):
    admin = admin_of(kafka.address)
    settings = Settings(topic=topic.name, bootstrap_servers=kafka.address, topic_auto_create=False)
    topic.send_state("before")
    service = Service(create_app(settings))
    try:
        assert service.first_state() == "before"
        admin.delete_topics([topic.name])[topic.name].result(30)
        eventually(
            lambda: "does not exist" in (service.status["last_error"] or {}).get("error", "")
        )
        # the broker creates topics for whoever asks for one by name, and nobody does
        assert not admin_sees(kafka, topic.name)
        assert service.first_state() == "before"
        new_topic(kafka.address, topic.name).send_state("after")
        service.comes_to("after")
    finally:
        service.consumer.stop(10)
