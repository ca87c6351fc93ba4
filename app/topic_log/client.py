"""How every client of the cluster is opened, and its errors in an operator's words."""

from __future__ import annotations

import json
import logging
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kafka import KafkaConsumer, KafkaProducer
from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError, TopicAuthorizationFailedError

from app.settings import SettingsError
from app.topic_log.installed import CLIENT, adapter
from app.topic_log.sign_in import sasl_options
from app.topic_log.tokens import tokens_of

if TYPE_CHECKING:
    from app.settings import Settings

LONGEST_RECONNECT_PAUSE_MS = 1_000

CLIENTS = KafkaConsumer, KafkaProducer, KafkaAdminClient
# what KAFKA_CLIENT_OPTIONS may have: all that the clients know, but for what this service sets
# itself, what has no effect on how it reads (it puts its own requests together), and proxies, of
# which what finds out whether brokers answer knows nothing
ACCEPTED_OPTIONS: dict[str, type] = {
    # of every connection
    "api_version": list,
    "api_version_auto_timeout_ms": int,
    "client_dns_lookup": str,
    "connections_max_idle_ms": int,
    "receive_buffer_bytes": int,
    "receive_message_max_bytes": int,
    "reconnect_backoff_ms": int,
    "retry_backoff_ms": int,
    "send_buffer_bytes": int,
    # of `kafka-state produce`
    "batch_size": int,
    "buffer_memory": int,
    "compression_type": str,
    "linger_ms": int,
    "max_in_flight_requests_per_connection": int,
    "retries": int,
}
IDLE = "connections_max_idle_ms"
JSON_TYPES = {int: "a whole number", str: "a string", list: "a list"}

# of a missing topic and of one that the ACLs hide TopicMetadata speaks
logging.getLogger("kafka.cluster").setLevel(logging.CRITICAL)


class CurrentContext:
    """Stands for a TLS context where a client keeps one: each connection is made by the files as
    they are then."""

    def __init__(self, current: Callable[[], ssl.SSLContext]) -> None:
        self._current = current

    def wrap_socket(self, *args: Any, **options: Any) -> ssl.SSLSocket:
        return self._current().wrap_socket(*args, **options)


def check_settings(settings: Settings) -> None:
    """
    Raises:
        SettingsError: KAFKA_CLIENT_OPTIONS has one that the client has not, or that has no effect;
            or KAFKA_OAUTH_TOKEN_PROVIDER names nothing that can be called.
        Exception: whatever importing somebody else's provider raises.
    """
    if settings.security.oauth_token_provider:
        tokens_of(settings.security)
    known = {name for client in CLIENTS for name in client.DEFAULT_CONFIG} & ACCEPTED_OPTIONS.keys()
    for name, value in json.loads(settings.client_options).items():
        if name not in known:
            accepted = f"accepted of {CLIENT} are {', '.join(sorted(known))}"
        elif type(value) is not ACCEPTED_OPTIONS[name]:
            accepted = f"accepted is {JSON_TYPES[ACCEPTED_OPTIONS[name]]}"
        elif name == IDLE and isinstance(value, int) and value <= settings.request_timeout_ms:
            accepted = (
                f"accepted is more than KAFKA_REQUEST_TIMEOUT_MS, {settings.request_timeout_ms}"
            )
        elif isinstance(value, int) and value < 0:
            accepted = "accepted is 0 or more"
        else:
            continue
        raise SettingsError(f"KAFKA_CLIENT_OPTIONS has {name!r}: {accepted}")


def connection_options(settings: Settings, server: str, client: Any) -> dict[str, Any]:
    """What every client of the cluster is opened with.

    Args:
        server: the host:port to begin with, one that answers; it tells the client of the others.
        client: the class, one of CLIENTS.
    """
    chosen = json.loads(settings.client_options).items()
    options = {
        **adapter.common_options(),
        # its own, for kafka-python-ng adds to the one of all clients
        "socket_options": list(client.DEFAULT_CONFIG["socket_options"]),
        **{
            name: tuple(value) if isinstance(value, list) else value
            for name, value in chosen
            if name in client.DEFAULT_CONFIG
        },
        "bootstrap_servers": [server],
        "client_id": settings.client_id,
        "request_timeout_ms": settings.request_timeout_ms,
        "reconnect_backoff_max_ms": LONGEST_RECONNECT_PAUSE_MS,
        "metadata_max_age_ms": settings.metadata_max_age_ms,
        "security_protocol": settings.security.protocol,
    }
    if settings.security.uses_tls:
        options["ssl_context"] = CurrentContext(settings.security.tls_context)
    if settings.security.uses_sasl:
        options |= sasl_options(settings.security)
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
            f"the ACLs do not let {settings.security.who} follow {settings.topic}: "
            "it needs DESCRIBE and READ"
        )
    return settings.redact(str(error) if isinstance(error, KafkaError) else repr(error))
