"""What happens between the first state and the end."""

from __future__ import annotations

import logging
import subprocess
import threading
import time

import psutil
import pytest
from confluent_kafka.admin import NewPartitions, NewTopic

from app.following import validation as verdicts
from app.following.publisher import Publisher
from dev import apache_kafka
from tests.support.topics import new_topic
from tests.support.waiting import eventually


def test_follows_message_by_message(topic, serve):
    service = serve(topic)
    assert service.first_state() == 0
    for state in range(1, 50):
        topic.send_state(state)
        assert service.comes_to(state)


def test_logs_the_first_state_and_each_change_but_few_of_a_flood(topic, serve, caplog):
    caplog.set_level(logging.INFO)
    topic.send_state({"long": "x" * 1000})
    service = serve(topic)
    service.first_state()
    (first,) = eventually(
        lambda: [line for line in caplog.messages if line.startswith("Initializing API")]
    )
    assert first.startswith('Initializing API with data from msg: state {"long":"xxx')
    assert len(first) < 250
    eventually(lambda: any('State updated to: {"long"' in line for line in caplog.messages))
    topic.send_state(77)
    service.comes_to(77)
    eventually(lambda: "State updated to: 77" in caplog.messages)
    for number in range(500):
        topic.send_state(number)
    topic.send_state("last")
    service.comes_to("last")
    eventually(lambda: any('State updated to: "last"' in line for line in caplog.messages))
    assert len([line for line in caplog.messages if "State updated" in line]) < 100


def test_logs_invalid_messages_at_a_bounded_rate_and_without_their_value(topic, serve, caplog):
    caplog.set_level(logging.INFO)
    service = serve(topic)
    service.first_state()
    topic.send(*[b'{"stat":"s3cret"}'] * 1000)
    eventually(lambda: service.status["invalid_messages"].get("schema") == 1000)
    eventually(lambda: any("more like it)" in line for line in caplog.messages))
    lines = [line for line in caplog.messages if "invalid message" in line]
    assert lines[0].startswith("Skipped an invalid message: schema: ")
    assert len(lines) < 50
    assert "s3cret" not in caplog.text


@pytest.mark.apache_kafka
def test_notices_partitions_that_are_added(topic, serve, admin):
    topic.send_state("on the first")
    service = serve(topic, metadata_max_age_ms=200)
    assert service.first_state() == "on the first"
    admin.create_partitions([NewPartitions(topic.name, 3)])[topic.name].result(30)
    # a producer of its own, for the other's metadata has one partition
    producer = topic.new_producer()
    topic.send_state("on a new one", partition=2, producer=producer)
    assert service.comes_to("on a new one")
    topic.send_state("on the first again")
    assert service.comes_to("on the first again")


@pytest.mark.apache_kafka
def test_a_thousand_partitions_are_asked_together_and_none_of_them_is_asked_twice(
    serve, bootstrap_servers
):
    topic = new_topic(bootstrap_servers, num_partitions=1000)
    topic.send_state("first", partition=999)
    service = serve(topic)
    assert service.first_state() == "first"
    eventually(lambda: all(p["lag"] == 0 for p in service.status["partitions"].values()))
    before, began = service.status["fetches"], time.monotonic()
    for number in range(20):
        topic.send_state(number, partition=number)
        assert service.comes_to(number)
    seconds = time.monotonic() - began
    # two a second while nothing comes, and for a message the one it is in and the next
    assert service.status["fetches"] - before <= 20 * 2 + 2 * seconds + 1


@pytest.mark.apache_kafka
def test_creates_a_topic_that_is_missing(serve, admin, topic_name):
    assert serve(topic_name).first_state() == 0
    assert len(admin.list_topics(timeout=10).topics[topic_name].partitions) == 1


@pytest.mark.apache_kafka
def test_waits_for_a_topic_that_it_may_not_create(serve, admin, topic_name):
    service = serve(topic_name, topic_auto_create=False)
    reason = f"the topic {topic_name} does not exist, and KAFKA_TOPIC_AUTO_CREATE is false"
    eventually(lambda: service.get("/readyz").json["detail"] == reason)
    assert service.get("/healthz").status_code == 200
    admin.create_topics([NewTopic(topic_name, 1)])[topic_name].result(30)
    assert service.first_state() == 0


@pytest.mark.apache_kafka
def test_kafkas_own_tool_shows_the_group_and_its_lag(topic, serve, bootstrap_servers):
    if not apache_kafka.available():
        pytest.skip("Kafka's own tools need java, and mvn to fetch them")
    apache_kafka.fetch()
    topic.send_state(*range(10))
    service = serve(topic, group_prefix="shown")
    service.first_state()
    group = service.status["group_id"]
    assert group.startswith("shown-")
    command = apache_kafka.java(
        "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"
        if apache_kafka.is_since(3, 8)
        else "kafka.admin.ConsumerGroupCommand",
        *("--bootstrap-server", bootstrap_servers, "--describe", "--group", group),
    )

    def row() -> list[str]:
        shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        lines = [line.split() for line in shown.stdout.splitlines()]
        return next((line for line in lines if line[:2] == [group, topic.name]), [])

    # group, topic, partition, current offset, log end offset, lag
    assert eventually(row)[2:6] == ["0", "10", "10", "0"]


@pytest.mark.apache_kafka
def test_follows_and_commits_where_a_request_may_take_no_longer_than_it_has_to(
    topic, serve, groups
):
    topic.send_state(1)
    service = serve(topic, request_timeout_ms=1000)
    assert service.first_state() == 1
    eventually(lambda: service.status["group_id"] in groups())
    topic.send_state(2)
    assert service.comes_to(2)
    assert service.status["failures"] == 0


@pytest.mark.apache_kafka
def test_has_no_group_where_positions_are_not_committed(topic, serve, groups, caplog):
    caplog.set_level(logging.INFO)
    of_others = group_threads()
    silent = serve(topic, commit_positions=False, group_prefix="silent")
    assert silent.first_state() == 0
    assert any(line.startswith("Following without a group: ") for line in caplog.messages)
    committing = serve(topic)
    # by then a position would have been committed
    eventually(lambda: committing.status["group_id"] in groups())
    topic.send_state(1)
    assert silent.comes_to(1)
    assert silent.status["group_id"] is None
    eventually(lambda: silent.status["partitions"]["0"]["position"] == 1)
    assert not [group for group in groups() if group.startswith("silent")]
    assert len(group_threads() - of_others) == 1
    silent.consumer.stop(10)
    assert not silent.consumer.is_alive()
    assert "is left behind" not in caplog.text


def group_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "group"}


@pytest.mark.apache_kafka
def test_deletes_its_group_at_a_clean_stop(topic, serve, groups):
    service = serve(topic)
    service.first_state()
    group = service.status["group_id"]

    eventually(lambda: group in groups())
    service.consumer.stop(10)
    assert not service.consumer.is_alive()
    assert group not in groups()


def test_a_failure_that_recurs_is_logged_once_with_its_traceback_and_leaves_no_clients_behind(
    topic, serve, monkeypatch, caplog
):
    topic.send_state("before")
    of_others = connections_to(topic.servers)
    service = serve(topic)
    assert service.first_state() == "before"

    def fails(publisher, follower):
        if follower.has_read:
            raise RuntimeError("unthought of")

    with monkeypatch.context() as patch:
        patch.setattr(Publisher, "publish", fails)
        eventually(lambda: service.status["failures"] >= 4)
        assert service.status["last_error"]["error"] == "RuntimeError('unthought of')"
        assert service.get("/healthz").status_code == 200
        assert service.first_state() == "before"
    topic.send_state("after")
    assert service.comes_to("after")
    assert service.status["connections"] >= 4
    assert caplog.text.count("Traceback") == 1
    service.consumer.stop(10)
    eventually(lambda: connections_to(topic.servers) <= of_others)


def connections_to(servers: str) -> int:
    """How many this process has."""
    port = int(servers.rpartition(":")[2])
    connected = psutil.Process().net_connections("tcp")
    return sum(bool(at.raddr) and at.raddr.port == port for at in connected)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_healthz_fails_when_the_thread_is_gone(topic, serve, monkeypatch):
    service = serve(topic)
    assert service.first_state() == 0
    assert service.get("/healthz").status_code == 200

    def ends_the_thread(value):
        raise SystemExit

    monkeypatch.setattr(verdicts, "parse_message", ends_the_thread)
    topic.send_state("never seen")
    eventually(lambda: service.get("/healthz").status_code == 503)
    assert service.get("/healthz").json["detail"] == "the consumer thread is not running"


def test_relocates_after_a_failure_that_nobody_thought_of(topic, serve, monkeypatch, caplog):
    topic.send_state("before")
    service = serve(topic)
    assert service.first_state() == "before"
    parse = verdicts.parse_message

    def fails_once(value):
        monkeypatch.setattr(verdicts, "parse_message", parse)
        raise RuntimeError("unthought of")

    monkeypatch.setattr(verdicts, "parse_message", fails_once)
    topic.send_state("after")
    assert service.comes_to("after")
    assert "RuntimeError: unthought of" in caplog.text
    assert service.consumer.is_alive()
