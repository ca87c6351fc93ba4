"""What was aborted, or may yet be, is not served."""

from __future__ import annotations

import time

import pytest

from tests.support.topics import delete_before
from tests.support.waiting import eventually

pytestmark = pytest.mark.apache_kafka


@pytest.fixture
def producer(topic):
    return topic.new_transactional_producer()


@pytest.fixture
def send_aborted(topic, producer):
    def send(*states: object) -> None:
        producer.begin_transaction()
        topic.send_state(*states, producer=producer)
        producer.abort_transaction()

    return send


def test_aborted_messages_are_not_served_though_they_are_all_there_is(topic, serve, send_aborted):
    send_aborted("never", "ever")
    service = serve(topic)
    assert service.first_state() == 0
    send_aborted("nor this")
    topic.send_state("committed")
    assert service.comes_to("committed")
    assert service.status["updates"] == 2


def test_the_last_committed_message_is_found_before_thousands_of_aborted_ones(
    topic, serve, send_aborted
):
    topic.send_state("committed")
    for _ in range(3):
        send_aborted(*range(1000))
    assert serve(topic).first_state() == "committed"


def test_an_open_message_is_served_when_it_is_committed_and_not_before(topic, serve, producer):
    producer.begin_transaction()
    topic.send_state("open", producer=producer)
    service = serve(topic)
    assert service.first_state() == 0
    eventually(lambda: service.status["partitions"].get("0", {}).get("lag"))
    producer.commit_transaction()
    assert service.comes_to("open")
    eventually(lambda: service.status["partitions"]["0"]["lag"] == 0)


@pytest.mark.parametrize("aborted", [0, 200])
def test_what_a_transaction_leaves_at_the_end_of_the_log_is_not_waited_for(
    topic, serve, producer, send_aborted, monkeypatch, aborted
):
    """Its marker, and what was aborted after it, are no messages, and nothing else will come."""
    monkeypatch.setattr("app.topic_log.exchange.WAIT_MS", 5000)
    service = serve(topic)
    assert service.first_state() == 0
    producer.begin_transaction()
    topic.send_state(*range(200), producer=producer)
    producer.commit_transaction()
    send_aborted(*range(aborted))
    eventually(lambda: service.get().json == {"state": 199}, within=4)


def test_an_open_message_is_served_where_that_is_asked_for(topic, serve, producer):
    producer.begin_transaction()
    topic.send_state("open", producer=producer)
    assert serve(topic, isolation_level="READ_UNCOMMITTED").first_state() == "open"


def test_a_failure_while_a_transaction_is_open_does_not_keep_others_from_being_read(
    make_topic, serve, admin
):
    """What failed tells no last stable offset, and the end before it still holds."""
    topic = make_topic(partitions=2)
    topic.send_state("first", partition=0)
    topic.send_state("first", partition=1)
    service = serve(topic)
    assert service.first_state() == "first"
    producer = topic.new_transactional_producer()
    producer.begin_transaction()
    ahead = int(time.time() * 1000) + 60_000
    topic.send_state("open", producer=producer, timestamp=ahead)
    # what would be read next is gone: the next fetch of this partition fails
    delete_before(admin, topic, 1)
    for number in range(5):
        topic.send_state(number, partition=1)
        eventually(lambda n=number: service.get().json == {"state": n}, within=1)
    assert service.status["partitions"]["0"]["lag"] == 1
    producer.commit_transaction()
    assert service.comes_to("open")
