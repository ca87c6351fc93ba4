"""What kafka-python 3 does in its own way, or gets wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kafka.admin import NewTopic
from kafka.errors import KafkaConnectionError, KafkaTimeoutError, UnrecognizedBrokerVersion
from kafka.net.compat import KafkaNetClient
from kafka.net.connection import KafkaConnection
from kafka.net.manager import KafkaConnectionManager

from app.topic_log.kafka_python_3 import requests as requests
from app.topic_log.kafka_python_3.sasl import TokenProvider as TokenProvider
from app.topic_log.kafka_python_3.sasl import sasl_exchange as sasl_exchange
from app.topic_log.kafka_python_3.threadless import ThreadlessClient
from app.topic_log.private_names import require_common_names, require_names

NAME = "kafka-python"
MADE_FOR = "3.0.12"
NO_START: tuple[type[Exception], ...] = (
    KafkaTimeoutError,
    KafkaConnectionError,
    UnrecognizedBrokerVersion,
)
CLOSED_AT_ONCE: tuple[type[Exception], ...] = ()
NO_CONTROLLER: tuple[type[Exception], ...] = ()

BOOTSTRAP_TIMEOUT_MS = 5_000

require_common_names(NAME, MADE_FOR)
require_names(NAME, MADE_FOR, KafkaConnection, "_sasl_authenticate")
require_names(NAME, MADE_FOR, KafkaNetClient, "_manager")
require_names(NAME, MADE_FOR, KafkaConnectionManager, "_conns", "_build_transport")


def common_options() -> dict[str, Any]:
    return {"bootstrap_timeout_ms": BOOTSTRAP_TIMEOUT_MS}


def reader_options(request_timeout_ms: int) -> dict[str, Any]:
    return {**committer_options(request_timeout_ms), "kafka_client": ThreadlessClient}


def committer_options(request_timeout_ms: int) -> dict[str, Any]:
    return {"metrics_enabled": False}  # nobody reads what it measures


def admin_options() -> dict[str, Any]:
    return {}


def producer_options(request_timeout_ms: int) -> dict[str, Any]:
    return {
        "delivery_timeout_ms": request_timeout_ms,
        # with it, a message that is refused takes the next one with it
        "enable_idempotence": False,
    }


def create_no_topics(consumer: Any) -> None:
    # 3.0.12 takes this as an option, and does not hand it on
    consumer._client.cluster.config["allow_auto_create_topics"] = False


def set_topics(client: Any, topics: Sequence[str]) -> None:
    client.cluster.set_topics(topics)


def broker_number(broker: Any) -> int:
    number: int = broker.node_id
    return number


def new_topic(name: str) -> Any:
    return NewTopic(name, num_partitions=1, replication_factor=-1)


def delete_group(admin: Any, group_id: str) -> None:
    admin.delete_groups([group_id])


def poll_commits(consumer: Any) -> None:
    # it has a thread that sends and receives
    consumer._coordinator._invoke_completed_offset_commit_callbacks()
