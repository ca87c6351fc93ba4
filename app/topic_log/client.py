"""How every client of the cluster is opened, and its errors in an operator's words."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kafka import KafkaConsumer
from kafka.errors import KafkaError, TopicAuthorizationFailedError

from app.topic_log.installed import adapter

if TYPE_CHECKING:
    from app.settings import Settings

LONGEST_RECONNECT_PAUSE_MS = 1_000

# of a missing topic and of one that the ACLs hide TopicMetadata speaks
logging.getLogger("kafka.cluster").setLevel(logging.CRITICAL)


class TopicLogError(KafkaError):  # type: ignore[misc]  # the client has no types
    """An error of this package itself, in an operator's words."""

    __str__ = Exception.__str__


class NotAllowed(TopicLogError):
    """The cluster's ACLs forbid what is needed; the text says what that is."""


def connection_options(settings: Settings, server: str) -> dict[str, Any]:
    """What every client of the cluster, consumer, producer or admin, is opened with.

    Args:
        server: the host:port to begin with, one that answers; it tells the client of the others.

    Raises:
        OSError: a file of certificates or keys can no longer be read.
    """
    options = {
        **adapter.common_options(),
        "bootstrap_servers": [server],
        "request_timeout_ms": settings.request_timeout_ms,
        "reconnect_backoff_max_ms": LONGEST_RECONNECT_PAUSE_MS,
        "metadata_max_age_ms": settings.metadata_max_age_ms,
        "security_protocol": settings.security_protocol,
    }
    if settings.uses_tls:
        options["ssl_context"] = settings.tls_context()
    if settings.uses_sasl:
        options["sasl_mechanism"] = settings.sasl_mechanism
        options["sasl_plain_username"] = settings.sasl_username
        options["sasl_plain_password"] = settings.sasl_password
    return options


def open_client(client: Callable[..., Any], **options: Any) -> Any:
    """Open a consumer or an admin client, and leave nothing behind of one that does not open.

    A client may leave a thread and three files each time.
    """
    connect = options.pop("kafka_client", KafkaConsumer.DEFAULT_CONFIG["kafka_client"])
    connections = []

    def connect_and_note(**config: Any) -> Any:
        connections.append(connect(**config))
        return connections[-1]

    try:
        return client(**options, kafka_client=connect_and_note)
    except BaseException:
        for connection in connections:
            connection.close()
        raise


def explain(error: Exception, settings: Settings) -> str:
    """Say what went wrong in words that an operator can act on, without secrets."""
    if isinstance(error, TopicAuthorizationFailedError):
        return (
            f"the ACLs do not let {settings.who} follow {settings.topic}: "
            "it needs DESCRIBE and READ"
        )
    return settings.redact(str(error) if isinstance(error, KafkaError) else repr(error))
