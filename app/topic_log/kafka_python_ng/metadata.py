"""Metadata that names the topic's id and creates no topic, with kafka-python-ng as well.

kafka-python-ng asks in version 1 of the request: its answer has no ids, so that a topic deleted
and created again looks like the same one, and the question itself creates a missing topic where
the broker creates topics by itself. Version 10 (KIP-516, Kafka 2.8) can do both. kafka-python 3
uses it anyway.
"""

from __future__ import annotations

import time
import uuid
from typing import Any

from kafka.client_async import KafkaClient
from kafka.errors import TopicAuthorizationFailedError, UnknownTopicOrPartitionError
from kafka.future import Future
from kafka.protocol.abstract import AbstractType
from kafka.protocol.api import Request, Response
from kafka.protocol.metadata import MetadataRequest, MetadataResponse
from kafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Schema,
    TaggedFields,
)

from app.topic_log.responsive import PrefersResponsiveBrokers

METADATA = 3
NO_AUTO_CREATION, TOPIC_IDS = 4, 10
NO_ID = uuid.UUID(int=0)
NO_TAGS: dict[int, bytes] = {}
# the caller keeps what it knew of a topic that has an error, and these two are no passing ones
LASTING_ERRORS = {UnknownTopicOrPartitionError.errno, TopicAuthorizationFailedError.errno}


class _Uuid(AbstractType):  # type: ignore[misc]  # the client has no types
    @classmethod
    def encode(cls, value: uuid.UUID) -> bytes:
        return value.bytes

    @classmethod
    def decode(cls, data: Any) -> uuid.UUID:
        return uuid.UUID(bytes=data.read(16))


class _Response(Response):  # type: ignore[misc]
    API_KEY = METADATA
    API_VERSION = TOPIC_IDS
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32),
                ("host", CompactString("utf-8")),
                ("port", Int32),
                ("rack", CompactString("utf-8")),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_id", CompactString("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("name", CompactString("utf-8")),
                ("topic_id", _Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("authorized_operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_authorized_operations", Int32),
        ("tags", TaggedFields),
    )


class _Request(Request):  # type: ignore[misc]
    API_KEY = METADATA
    API_VERSION = TOPIC_IDS
    RESPONSE_TYPE = _Response
    FLEXIBLE_VERSION = True
    SCHEMA = Schema(
        (
            "topics",
            CompactArray(
                ("topic_id", _Uuid), ("name", CompactString("utf-8")), ("tags", TaggedFields)
            ),
        ),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class MetadataClient(PrefersResponsiveBrokers, KafkaClient):  # type: ignore[misc]
    """The client that a consumer works through; its `cluster` has `topic_id`, as version 3's."""

    def __init__(self, **config: Any) -> None:
        # nobody reads what it measures, which is an eighth of what it does
        super().__init__(**{**config, "metrics": None})
        self._topic_ids: dict[str, uuid.UUID] = {}
        self.cluster.leader_epochs = {}  # by topic and partition; none from before Kafka 2.8
        self.cluster.topic_id = lambda topic: self._topic_ids.get(topic)

    def heard(self) -> dict[Any, float]:
        now = time.time()
        heard_at = self._idle_expiry_manager.lru_connections
        return {node: now - at for node, at in heard_at.items() if self.connected(node)}

    def send(self, node_id: Any, request: Any, wakeup: bool = True) -> Any:
        wakeup = False  # of a thread that polls: it is the one that sends
        if not isinstance(request, MetadataRequest[1]):
            return super().send(node_id, request, wakeup)
        names = request.topics or []  # without one it would ask for every topic of the cluster
        _, newest = (self.get_api_versions() or {}).get(METADATA, (0, 0))
        if newest < NO_AUTO_CREATION:
            return super().send(node_id, MetadataRequest[1](names), wakeup)
        if newest < TOPIC_IDS:
            return super().send(node_id, MetadataRequest[4](names, False), wakeup)
        answer = Future()
        topics = [(NO_ID, name, NO_TAGS) for name in names]
        sent = super().send(node_id, _Request(topics, False, False, False, NO_TAGS), wakeup)
        sent.add_callback(self._take, answer)
        sent.add_errback(answer.failure)
        return answer

    def _take(self, answer: Future, response: Any) -> None:
        self.cluster.leader_epochs = {
            (name, number): epoch
            for _, name, _, _, partitions, *_ in response.topics
            for _, number, _, epoch, *_ in partitions
        }
        self._topic_ids = {name: topic_id for error, name, topic_id, *_ in response.topics}
        answer.success(
            MetadataResponse[1](
                [broker[:4] for broker in response.brokers],
                response.controller_id,
                [
                    (error, name, is_internal, [_partition(partition) for partition in partitions])
                    for error, name, _, is_internal, partitions, *_ in response.topics
                    if error not in LASTING_ERRORS
                ],
            )
        )
        self.cluster.unauthorized_topics = {
            name
            for error, name, *_ in response.topics
            if error == TopicAuthorizationFailedError.errno
        }


def _partition(partition: tuple[Any, ...]) -> tuple[Any, ...]:
    error, number, leader, _epoch, replicas, isr, *_ = partition
    return error, number, leader, replicas, isr
