"""What kafka-python-ng does in its own way, or gets wrong."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from kafka.admin import NewTopic
from kafka.client_async import KafkaClient
from kafka.cluster import ClusterMetadata
from kafka.errors import (
    KafkaConnectionError,
    KafkaTimeoutError,
    NoBrokersAvailable,
    UnrecognizedBrokerVersion,
)

from app.topic_log.adapter import RECEIVE_BYTES
from app.topic_log.kafka_python_ng import requests as requests
from app.topic_log.kafka_python_ng.metadata import MetadataClient
from app.topic_log.kafka_python_ng.sasl import TokenProvider as TokenProvider
from app.topic_log.kafka_python_ng.sasl import sasl_exchange as sasl_exchange
from app.topic_log.private_names import require_common_names, require_names

NAME = "kafka-python-ng"
MADE_FOR = "2.2.3"
NO_START: tuple[type[Exception], ...] = (
    KafkaConnectionError,
    KafkaTimeoutError,
    NoBrokersAvailable,
    UnrecognizedBrokerVersion,
)
CLOSED_AT_ONCE: tuple[type[Exception], ...] = (ValueError,)
NO_CONTROLLER: tuple[type[Exception], ...] = (AssertionError,)

STEP_MS = 100

require_common_names(NAME, MADE_FOR)
require_names(NAME, MADE_FOR, KafkaClient, "_idle_expiry_manager", "get_api_versions")
require_names(NAME, MADE_FOR, ClusterMetadata, "unauthorized_topics")


class _BoundedClient(KafkaClient):  # type: ignore[misc]  # the client has no types
    """The admin client polls until a node is ready, be it gone for good."""

    def __init__(self, **config: Any) -> None:
        self._deadline = time.monotonic() + config["request_timeout_ms"] / 1000
        super().__init__(**config)

    def poll(self, timeout_ms: float | None = None, future: Any = None) -> Any:
        if time.monotonic() > self._deadline:
            raise KafkaTimeoutError("no answer from the cluster's controller")
        return super().poll(STEP_MS if timeout_ms is None else timeout_ms, future)

    def check_version(self, node_id: Any = None, timeout: float = 2, strict: bool = False) -> Any:
        """Find out the cluster's version once: each time it pauses for 0.1 s."""
        if node_id is None and self.config["api_version"] is not None:
            return self.config["api_version"]
        return super().check_version(node_id, timeout, strict)


def common_options() -> dict[str, Any]:
    return {}


def reader_options(request_timeout_ms: int) -> dict[str, Any]:
    return {
        # it wants each to be shorter than that of a request, or than the one before; neither this
        # consumer nor the group has members, and thus sessions
        "session_timeout_ms": request_timeout_ms - 1,
        "heartbeat_interval_ms": request_timeout_ms - 2,
        "kafka_client": MetadataClient,
        "sock_chunk_bytes": RECEIVE_BYTES,
    }


committer_options = reader_options


def admin_options() -> dict[str, Any]:
    return {"kafka_client": _BoundedClient}


def producer_options(request_timeout_ms: int) -> dict[str, Any]:
    return {}


def create_no_topics(consumer: Any) -> None:
    """Nothing to do: `MetadataClient` sees to it."""


def set_topics(client: Any, topics: Sequence[str]) -> None:
    client.set_topics(topics)


def broker_number(broker: Any) -> int:
    number: int = broker.nodeId
    return number


def new_topic(name: str) -> Any:
    topic = NewTopic(name, num_partitions=1, replication_factor=1)
    topic.replication_factor = -1  # which the constructor refuses
    return topic


def delete_group(admin: Any, group_id: str) -> None:
    admin.delete_consumer_groups([group_id])


def poll_commits(consumer: Any) -> None:
    consumer._client.poll(timeout_ms=0)
    consumer._coordinator._invoke_completed_offset_commit_callbacks()
