"""Topics are created, and groups deleted, by an admin client that does not wait for ever."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from kafka.admin import KafkaAdminClient
from kafka.errors import (
    ClusterAuthorizationFailedError,
    IncompatibleBrokerVersion,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
)

from app.topic_log.client import connection_options, open_client
from app.topic_log.connectivity import reaching
from app.topic_log.errors import NotAllowed, TopicLogError
from app.topic_log.installed import adapter

if TYPE_CHECKING:
    from app.settings import Settings


@contextlib.contextmanager
def admin_client(settings: Settings) -> Iterator[KafkaAdminClient]:
    """Open an admin client for a few requests.

    Raises:
        KafkaError: as the requests do, or there is no controller to be asked.
    """
    try:
        with reaching(settings) as server:
            admin = open_client(
                KafkaAdminClient,
                **connection_options(settings, server, KafkaAdminClient),
                **adapter.admin_options(),
            )
    except adapter.NO_CONTROLLER as error:
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
    topic = adapter.new_topic(settings.topic)
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
            f"the topic {settings.topic} does not exist, and the ACLs do not let {settings.security.who} "
            "create it: it needs CREATE on the topic or the cluster"
        ) from error
    return True
