"""The state is that of the last valid message, whatever the log looks like."""

from __future__ import annotations

import random
import time

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from tests.support.topics import offsets_of, read_offsets
from tests.support.undecodable import send_undecodable
from tests.support.waiting import eventually

NOW = int(time.time() * 1000)


def test_serves_the_initial_value_on_an_empty_topic(topic, serve):
    service = serve(topic, initial='{"model":null}')
    assert service.first_state() == {"model": None}
    topic.send_state(1)
    assert service.comes_to(1)


def test_serves_the_last_message(topic, serve):
    topic.send_state(1, 2, 3)
    service = serve(topic)
    assert service.first_state() == 3
    topic.send_state(4)
    assert service.comes_to(4)


def test_serves_the_last_valid_message_when_thousands_of_invalid_ones_follow_it(topic, serve):
    topic.send_state("valid")
    topic.send(*[b"invalid"] * 20_000)
    service = serve(topic)
    assert service.first_state() == "valid"
    assert service.status["invalid_messages"] == {"json": 20_000}


def test_goes_on_past_thousands_of_invalid_messages_that_arrive_while_following(topic, serve):
    topic.send_state(1)
    service = serve(topic)
    assert service.first_state() == 1
    topic.send(*[b"{}"] * 20_000)
    topic.send_state(2)
    topic.send(*[None] * 5_000)
    assert service.comes_to(2)
    topic.send_state(3)
    assert service.comes_to(3)


def test_serves_the_initial_value_when_every_message_is_invalid(topic, serve):
    topic.send(b"", b"\xff", b"[]", None, b'{"state":NaN}')
    service = serve(topic)
    assert service.first_state() == 0
    assert sum(service.status["invalid_messages"].values()) == 5


def test_serves_the_last_valid_message_when_the_tail_is_a_tombstone(topic, serve):
    topic.send_state(5, key=b"k")
    topic.send(None, key=b"k")
    assert serve(topic).first_state() == 5


@pytest.mark.apache_kafka
@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_reads_every_compression_codec(topic, serve, codec):
    producer = topic.new_producer(**{"compression.type": codec, "linger.ms": 50})
    states = [{"number": number, "text": "compressible " * 20} for number in range(300)]
    topic.send_state(*states, producer=producer)
    topic.send(*[b"compressible invalid " * 20] * 300, producer=producer)
    service = serve(topic)
    assert service.first_state() == states[-1]
    topic.send_state("next", producer=producer)
    assert service.comes_to("next")


@pytest.mark.apache_kafka
def test_serves_messages_of_some_megabytes_from_every_partition(make_topic, serve):
    topic = make_topic(partitions=2, max_message_bytes="10000000")
    producer = topic.new_producer(**{"message.max.bytes": 10_000_000})
    noise = random.Random(1)
    large = [noise.randbytes(3_000_000).hex() for _ in range(4)]
    for partition in (0, 1):
        topic.send_state(large[partition], producer=producer, partition=partition)
        topic.send(b"x" * 6_000_000, producer=producer, partition=partition)
    service = serve(topic)
    assert service.first_state() == large[1]
    for partition in (0, 1):
        topic.send_state(large[2 + partition], producer=producer, partition=partition)
        assert service.comes_to(large[2 + partition])


@pytest.mark.parametrize("newest", range(4))
def test_serves_the_newest_message_on_whichever_partition_it_is(make_topic, serve, newest):
    topic = make_topic(partitions=4)
    for age, partition in enumerate([p for p in range(4) if p != newest] + [newest]):
        topic.send_state(f"on {partition}", partition=partition, timestamp=NOW + age)
    service = serve(topic)
    assert service.first_state() == f"on {newest}"
    topic.send_state("older", partition=(newest + 1) % 4, timestamp=NOW - 1)
    topic.send_state("newer", partition=(newest + 2) % 4, timestamp=NOW + 1000)
    assert service.comes_to("newer")


def test_within_a_partition_the_offset_decides_and_not_the_timestamp(make_topic, serve):
    topic = make_topic(partitions=4)
    topic.send_state("first", partition=1, timestamp=NOW + 9)
    topic.send_state("last", partition=1, timestamp=NOW + 3)
    topic.send_state("between", partition=0, timestamp=NOW + 5)
    service = serve(topic)
    assert service.first_state() == "between"
    topic.send_state("newest", partition=0, timestamp=NOW + 1)
    assert service.comes_to("last")


def test_a_partition_without_messages_does_not_hold_the_others_up(make_topic, serve):
    topic = make_topic(partitions=4)
    topic.send_state("only", partition=2)
    assert serve(topic).first_state() == "only"


@pytest.mark.apache_kafka
def test_serves_the_last_valid_message_when_the_tail_is_a_transaction_marker(topic, serve):
    producer = topic.new_transactional_producer()
    for state in ("first", "second"):
        producer.begin_transaction()
        topic.send_state(state, producer=producer)
        producer.commit_transaction()
    service = serve(topic)
    assert service.first_state() == "second"
    producer.begin_transaction()
    topic.send_state("third", producer=producer)
    producer.commit_transaction()
    assert service.comes_to("third")
    assert service.status["invalid_messages"] == {}


@pytest.mark.apache_kafka
def test_serves_the_initial_value_when_the_topic_was_emptied(topic, serve, admin):
    topic.send_state(*range(100))
    partition = TopicPartition(topic.name, 0, 100)
    admin.delete_records([partition])[partition].result(30)
    service = serve(topic)
    assert service.first_state() == 0
    topic.send_state("after")
    assert service.comes_to("after")


@pytest.mark.apache_kafka
def test_serves_the_initial_value_when_retention_emptied_the_topic(make_topic, serve):
    topic = make_topic(retention_ms="1000", segment_ms="500")
    past = int(time.time() * 1000) - 3_600_000
    topic.send_state(*range(100), timestamp=past)
    # brokers before 3.8 look for the first time half a minute after their start
    eventually(lambda: offsets_of(topic)[0] == 100, within=60)
    assert serve(topic).first_state() == 0


@pytest.mark.apache_kafka
def test_serves_the_last_valid_message_of_a_compacted_topic_with_gaps(make_topic, serve):
    topic = make_topic(
        cleanup_policy="compact",
        segment_ms="100",
        min_cleanable_dirty_ratio="0.01",
        delete_retention_ms="0",
    )
    topic.send_state("kept", key=b"kept")
    for round_number in range(5):
        topic.send(*[b"superseded"] * 200, key=b"again and again")
        topic.send(b"%d" % round_number, key=b"again and again")
    # nothing is compacted before a later message has made the segments roll
    eventually(lambda: _roll(topic) and len(read_offsets(topic)) < 100)
    assert offsets_of(topic)[1] > 1000
    service = serve(topic)
    assert service.first_state() == "kept"
    topic.send_state("next", key=b"kept")
    assert service.comes_to("next")


def _roll(topic) -> bool:
    topic.send(b"invalid", key=b"roll")
    return True


@pytest.mark.apache_kafka
def test_serves_the_last_valid_message_when_the_end_of_the_log_was_compacted_away(
    make_topic, serve, admin: AdminClient
):
    """Batches of several messages, of which compaction leaves only the first ones."""
    topic = make_topic(
        cleanup_policy="compact",
        segment_ms="100",
        min_cleanable_dirty_ratio="0.01",
        delete_retention_ms="0",
    )
    batching = topic.new_producer(**{"linger.ms": 200, "batch.num.messages": 100})
    topic.send_state("kept", key=b"kept")
    for number in range(50):
        batching.produce(topic.name, b"invalid", key=b"%d" % (number % 10), partition=0)
    assert batching.flush(30) == 0
    topic.send(*[None] * 10, key=b"0")
    eventually(lambda: _roll(topic) and offsets_of(topic)[1] - len(read_offsets(topic)) > 30)
    service = serve(topic)
    assert service.first_state() == "kept"


@pytest.mark.apache_kafka
def test_steps_over_messages_that_the_client_cannot_decode(make_topic, serve):
    topic = make_topic(partitions=2)
    topic.send_state("before", timestamp=NOW)
    send_undecodable(topic, count=20, partition=0)
    topic.send_state("after", timestamp=NOW + 2)
    send_undecodable(topic, count=20, partition=0)
    topic.send_state("other partition", partition=1, timestamp=NOW + 1)
    send_undecodable(topic, count=3, partition=1)
    service = serve(topic)
    assert service.first_state() == "after"
    send_undecodable(topic, count=5, partition=1)
    # before the next one is there, for then they would be passed over
    eventually(lambda: service.status["invalid_messages"] == {"unreadable": 28})
    topic.send_state("next", partition=1)
    assert service.comes_to("next")
    assert service.status["invalid_messages"] == {"unreadable": 28}
