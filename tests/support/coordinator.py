"""The coordinator of groups, which a new broker does not have yet."""

from __future__ import annotations

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from tests.support.waiting import eventually

WITHIN_SECONDS = 30
# a group's coordinator is being chosen, or has just moved
COORDINATOR_TO_COME = {
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError._TIMED_OUT,
    KafkaError._TRANSPORT,
    KafkaError.REQUEST_TIMED_OUT,
}


def committed(consumer: Consumer, topic: str) -> TopicPartition | None:
    """What the consumer's group has committed of partition 0; None while the group has no
    coordinator."""
    try:
        (at,) = consumer.committed([TopicPartition(topic, 0)], timeout=10)
    except KafkaException as error:
        assert error.args[0].code() in COORDINATOR_TO_COME, error
        return None
    return at


def await_coordinator(address: str) -> None:
    """Of groups; a new broker has none yet, which the service would tell of."""
    consumer = Consumer({"bootstrap.servers": address, "group.id": "nobody"})
    eventually(lambda: committed(consumer, "nothing") is not None, within=WITHIN_SECONDS)
    consumer.close()
