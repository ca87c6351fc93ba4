"""The log is changed under the one that follows it."""

from __future__ import annotations

import random
import signal
import threading

import pytest
from confluent_kafka import TopicPartition

from tests.processes import following
from tests.waiting import eventually

pytestmark = pytest.mark.apache_kafka


def delete_before(admin, topic, offset: int) -> None:
    upto = TopicPartition(topic.name, 0, offset)
    admin.delete_records([upto])[upto].result(30)


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


def test_goes_on_at_the_end_when_what_it_would_read_next_was_deleted(topic, admin, tmp_path):
    topic.send_state("before")
    with following(topic, tmp_path / "output") as program:
        program.comes_to("before")
        worker = program.tree()[1]
        worker.send_signal(signal.SIGSTOP)
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
