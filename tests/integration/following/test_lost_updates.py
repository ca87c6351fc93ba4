"""Nothing that a fetch brings is passed over without a look."""

from __future__ import annotations

import time

import pytest

from tests.support.topics import read_offsets
from tests.support.undecodable import send_undecodable
from tests.support.waiting import eventually

NOW = int(time.time() * 1000)
SOON_SECONDS = 1.0
IDEMPOTENT = {"enable.idempotence": True}


@pytest.fixture
def producer(topic):
    return topic.new_transactional_producer()


@pytest.mark.apache_kafka
def test_serves_the_last_message_of_a_transaction_right_after_another_message(
    topic, serve, producer
):
    service = serve(topic)
    assert service.first_state() == 0
    for number in range(5):
        topic.send_state(f"alone {number}")
        producer.begin_transaction()
        topic.send_state(1, 2, f"last {number}", producer=producer)
        producer.commit_transaction()
        eventually(lambda n=number: service.get().json == {"state": f"last {n}"}, SOON_SECONDS)


@pytest.mark.apache_kafka
def test_serves_the_last_message_before_an_aborted_transaction_right_after_another_message(
    topic, serve, producer
):
    service = serve(topic)
    assert service.first_state() == 0
    batching = topic.new_producer(**{"linger.ms": 20})
    for number in range(5):
        topic.send_state(f"alone {number}")
        topic.send_state(1, 2, f"last {number}", producer=batching)
        producer.begin_transaction()
        topic.send_state("never", "ever", producer=producer)
        producer.abort_transaction()
        eventually(lambda n=number: service.get().json == {"state": f"last {n}"}, SOON_SECONDS)


@pytest.mark.apache_kafka
def test_a_record_that_cannot_be_decoded_takes_no_message_of_another_partition_along(
    make_topic, serve
):
    topic = make_topic(partitions=3)
    for partition in range(3):
        topic.send(b"the leader is there", partition=partition)
        send_undecodable(topic, count=3, partition=partition)
    topic.send_state("start", partition=0, timestamp=NOW)
    for _ in range(6):
        service = serve(topic)
        assert service.first_state() == "start"
    for number in range(20):
        send_undecodable(topic, count=2, partition=number % 2)
        topic.send_state(number, partition=(number + 1) % 2, timestamp=NOW + number + 1)
        send_undecodable(topic, count=2, partition=2)
        eventually(lambda n=number: service.get().json == {"state": n}, SOON_SECONDS)


@pytest.mark.apache_kafka
def test_gives_the_message_between_two_of_its_batch_that_cannot_be_decoded(topic, serve):
    service = serve(topic)
    assert service.first_state() == 0
    topic.send(b"the leader is there")
    eventually(lambda: service.status["invalid_messages"] == {"json": 1})
    send_undecodable(topic, count=3, partition=0, good={1: b'{"state":"between"}'})
    assert service.comes_to("between")
    eventually(lambda: service.status["partitions"]["0"]["lag"] == 0)
    assert service.status["invalid_messages"] == {"json": 1, "unreadable": 1}


@pytest.fixture
def empty_batch_first(make_topic):
    """A compacted topic whose first batch has lost its only record: as the last one of an
    idempotent producer the batch itself stays."""
    topic = make_topic(
        cleanup_policy="compact",
        segment_ms="100",
        min_cleanable_dirty_ratio="0.01",
        delete_retention_ms="0",
    )
    topic.send(b"superseded", key=b"k", producer=topic.new_producer(**IDEMPOTENT))
    topic.send(b"invalid", key=b"k")

    def is_empty() -> bool:
        topic.send(b"invalid", key=b"roll")
        return read_offsets(topic)[0] > 0

    eventually(is_empty, within=30)
    return topic


@pytest.mark.apache_kafka
def test_an_empty_batch_at_the_beginning_of_the_log_is_stepped_over(empty_batch_first, serve):
    topic = empty_batch_first
    service = serve(topic)
    assert service.first_state() == 0
    topic.send_state("after", key=b"after")
    assert service.comes_to("after")
    assert service.status["fetches"] < 30


@pytest.mark.apache_kafka
def test_a_large_message_behind_an_empty_batch_is_found(empty_batch_first, serve):
    topic = empty_batch_first
    large = "x" * 900_000
    topic.send_state(large, key=b"large")
    topic.send(*[None] * 3, key=b"others")
    service = serve(topic)
    assert service.first_state() == large
    assert service.status["fetches"] < 30
