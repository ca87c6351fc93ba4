"""The log is changed under the one that follows it."""

from __future__ import annotations

import random
import signal
import threading
import time

import pytest
from confluent_kafka.admin import NewPartitions

from dev.frozen import freeze
from tests.support.processes import following
from tests.support.topics import delete_before
from tests.support.waiting import eventually

pytestmark = pytest.mark.apache_kafka


NOW = int(time.time() * 1000)
SOON_SECONDS = 1.0


def test_keeps_the_state_when_its_record_is_deleted(topic, serve, admin):
    topic.send_state(*range(10))
    service = serve(topic)
    assert service.first_state() == 9
    delete_before(admin, topic, 10)
    topic.send(b"invalid")
    eventually(lambda: service.status["invalid_messages"] == {"json": 1})
    assert service.first_state() == 9
    topic.send_state("next")
    assert service.comes_to("next")
    assert service.status["failures"] == 0


def test_a_deleted_state_dated_ahead_has_no_say_once_a_newer_message_can_be_read(
    make_topic, serve, admin
):
    topic = make_topic(partitions=2)
    topic.send_state("old", partition=1, timestamp=NOW - 1000)
    running = serve(topic)
    assert running.first_state() == "old"
    topic.send_state("ahead", partition=0, timestamp=NOW + 60_000)
    assert running.comes_to("ahead")
    delete_before(admin, topic, 1)
    topic.send(b"invalid", partition=0)
    eventually(lambda: running.status["invalid_messages"] == {"json": 1})
    assert running.get().json == {"state": "ahead"}
    for number in range(3):
        topic.send_state(number, partition=1, timestamp=NOW + number)
        eventually(lambda n=number: running.get().json == {"state": n}, SOON_SECONDS)
        assert serve(topic).first_state() == number


def test_a_deleted_state_dated_ahead_has_no_say_once_a_partition_with_a_message_is_added(
    topic, serve, admin
):
    topic.send_state("ahead", timestamp=NOW + 60_000)
    running = serve(topic, metadata_max_age_ms=200)
    assert running.first_state() == "ahead"
    delete_before(admin, topic, 1)
    admin.create_partitions([NewPartitions(topic.name, 2)])[topic.name].result(30)
    # a producer of its own, for the other's metadata has one partition
    topic.send_state("new", partition=1, timestamp=NOW, producer=topic.new_producer())
    assert running.comes_to("new")
    assert serve(topic).first_state() == "new"


def test_who_starts_and_who_follows_agree_on_what_is_left_of_a_partition(make_topic, serve, admin):
    topic = make_topic(partitions=2)
    running = serve(topic)
    topic.send_state("first", partition=0, timestamp=NOW + 60_000)
    assert running.comes_to("first")
    topic.send_state("last", "and least", partition=0, timestamp=NOW + 30_000)
    assert running.comes_to("and least")
    delete_before(admin, topic, 2)
    topic.send_state("elsewhere", partition=1, timestamp=NOW)
    eventually(lambda: running.status["partitions"]["1"]["position"] == 1)
    assert running.get().json == {"state": "and least"}
    assert serve(topic).first_state() == "and least"


def test_goes_on_at_the_end_when_what_it_would_read_next_was_deleted(topic, admin, tmp_path):
    topic.send_state("before")
    with following(topic, tmp_path / "output") as program:
        program.comes_to("before")
        worker = program.tree()[1]
        freeze(worker.pid)
        topic.send_state(*range(100))
        topic.send(*[b"invalid"] * 100)
        delete_before(admin, topic, 50)
        worker.send_signal(signal.SIGCONT)
        program.comes_to(99)
        topic.send_state("after")
        program.comes_to("after")


def test_a_message_that_does_not_fit_beside_a_flood_is_read_all_the_same(make_topic, serve):
    """A broker sends one whole batch however large, and more only as far as they fit (KIP-74)."""
    topic = make_topic(partitions=2, max_message_bytes="10000000")
    service = serve(topic)
    assert service.first_state() == 0
    stopping = threading.Event()
    noise = random.Random(1)
    large = noise.randbytes(2_000_000).hex()
    chunk = noise.randbytes(100_000).hex().encode()

    def flood() -> None:
        producer = topic.new_producer()
        while not stopping.is_set():
            topic.send(*[chunk] * 5, producer=producer)

    flooding = threading.Thread(target=flood)
    flooding.start()
    try:
        topic.send_state(
            large, partition=1, producer=topic.new_producer(**{"message.max.bytes": 10_000_000})
        )
        assert service.comes_to(large)
    finally:
        stopping.set()
        flooding.join()
