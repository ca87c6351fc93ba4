"""The client that creates topics and deletes groups, with an end to all its waiting."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from kafka.admin import KafkaAdminClient, NewTopic
from kafka.errors import (
    ClusterAuthorizationFailedError,
    IncompatibleBrokerVersion,
    KafkaTimeoutError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
)

from app.topic_log.client import (
    NotAllowed,
    TopicLogError,
    connection_options,
    open_client,
)
from app.topic_log.connectivity import reaching
from app.topic_log.installed import IS_KAFKA_PYTHON_3

if TYPE_CHECKING:
    from app.settings import Settings

STEP_MS = 100

if not IS_KAFKA_PYTHON_3:
    from kafka.client_async import KafkaClient

    class _BoundedClient(KafkaClient):  # type: ignore[misc]  # the client has no types
        """kafka-python-ng's admin client polls until a node is ready, be it gone for good."""

        def __init__(self, **config: Any) -> None:
            self._deadline = time.monotonic() + config["request_timeout_ms"] / 1000
            super().__init__(**config)

        def poll(self, timeout_ms: float | None = None, future: Any = None) -> Any:
            if time.monotonic() > self._deadline:
                raise KafkaTimeoutError("no answer from the cluster's controller")
            return super().poll(STEP_MS if timeout_ms is None else timeout_ms, future)

        def check_version(
            self, node_id: Any = None, timeout: float = 2, strict: bool = False
        ) -> Any:
            """Of the cluster as a whole once: each time kafka-python-ng pauses for 0.1 s."""
            if node_id is None and self.config["api_version"] is not None:
                return self.config["api_version"]
            return super().check_version(node_id, timeout, strict)


@contextlib.contextmanager
def admin_client(settings: Settings) -> Iterator[KafkaAdminClient]:
    """For a few requests, soon done.

    Raises:
        KafkaError: as the requests do, or there is no controller to be asked.
    """
    options = {} if IS_KAFKA_PYTHON_3 else {"kafka_client": _BoundedClient}
    try:
        with reaching(settings) as server:
            admin = open_client(KafkaAdminClient, **connection_options(settings, server), **options)
    except AssertionError as error:  # kafka-python-ng's, where the metadata names no controller
        raise TopicLogError("the cluster has no controller at the moment") from error
    try:
        yield admin
    finally:
        admin.close()


def create_topic(settings: Settings, *, validate_only: bool = False) -> bool:
    """Create the topic: one partition, the broker's default replication. Gives False where it is
    there already.

    Args:
        validate_only: the brokers say whether they would, and do not.

    Raises:
        NotAllowed: by the ACLs.
        KafkaError: it cannot be created.
    """
    topic = NewTopic(settings.topic, num_partitions=1, replication_factor=1)
    topic.replication_factor = -1  # kafka-python-ng's constructor refuses it
    try:
        with admin_client(settings) as admin:
            admin.create_topics([topic], validate_only=validate_only)
    except TopicAlreadyExistsError:
        return False
    except IncompatibleBrokerVersion as error:
        raise TopicLogError(
            f"the topic {settings.topic} does not exist, and the broker knows no request to create "
            "one; it may create it when a message is sent"
        ) from error
    except (TopicAuthorizationFailedError, ClusterAuthorizationFailedError) as error:
        raise NotAllowed(
            f"the topic {settings.topic} does not exist, and the ACLs do not let {settings.who} "
            "create it: it needs CREATE on the topic or the cluster"
        ) from error
    return True
