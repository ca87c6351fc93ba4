"""Find out what keeps a broker from being reached, before the client is asked to.

The clients say of an absent broker, an unknown certificate and a wrong password alike that there
is no broker, and say it in dozens of log lines a minute. This says which, and costs one short
connection.
"""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING

from kafka import errors

from app.topic_log.client import TopicLogError

if TYPE_CHECKING:
    from app.settings import Settings

ANSWER_SECONDS = 2.0
LONGEST_ANSWER = 64 * 1024

# https://kafka.apache.org/protocol#protocol_api_keys
METADATA, SASL_HANDSHAKE, API_VERSIONS = 3, 17, 18
UNSUPPORTED_SASL_MECHANISM = 33

# what the one or the other client raises when it cannot start to talk to the cluster
NO_START = tuple(
    getattr(errors, name)
    for name in (
        "KafkaTimeoutError",
        "KafkaConnectionError",
        "NoBrokersAvailable",
        "UnrecognizedBrokerVersion",
    )
    if hasattr(errors, name)
)


class Unreachable(TopicLogError):
    """No broker can be talked to; the text says for each of them why."""


@contextlib.contextmanager
def reaching(settings: Settings) -> Iterator[None]:
    """What opens a client goes into the block.

    Raises:
        Unreachable: there is no broker to be talked to, or it refuses the client.
        OSError: a file of certificates or keys can no longer be read.
    """
    _require_answer(settings)
    servers = settings.bootstrap_servers
    try:
        yield
    # a ValueError is kafka-python-ng's, where a connection is closed as soon as it is open
    except (*NO_START, ValueError) as error:
        _require_answer(settings)  # or it has gone since then
        if settings.uses_sasl:
            raise Unreachable(
                f"{servers} answers, and then refuses {settings.who}: the user name or the "
                f"password is wrong for {settings.sasl_mechanism}"
            ) from error
        raise Unreachable(f"{servers} answers, and then no more: {error}") from error


def _require_answer(settings: Settings) -> None:
    """Talk to one broker after the other until one answers as Kafka, up to its authentication."""
    context = settings.tls_context() if settings.uses_tls else None
    reasons = []
    for server in settings.bootstrap_servers.split(","):
        try:
            _talk(server, context, settings.sasl_mechanism)
        except (OSError, Unreachable) as error:
            reasons.append(f"{server}: {_reason(error, settings)}")
        else:
            return
    raise Unreachable("no broker can be reached: " + "; ".join(reasons))


def _talk(server: str, context: ssl.SSLContext | None, sasl_mechanism: str | None) -> None:
    host, port = _address(server)
    with socket.create_connection((host, port), ANSWER_SECONDS) as connection:
        if context:
            connection = context.wrap_socket(connection, server_hostname=host)
        with connection:
            _ask(connection, API_VERSIONS, version=0)
            if not sasl_mechanism:
                # one that wants SASL ends the connection now; it asks for none of the topics
                _ask(connection, METADATA, version=1, body=struct.pack(">i", 0))
            else:
                mechanism = sasl_mechanism.encode()
                body = struct.pack(">h", len(mechanism)) + mechanism
                answer = _ask(connection, SASL_HANDSHAKE, version=1, body=body)
                if struct.unpack_from(">h", answer)[0] == UNSUPPORTED_SASL_MECHANISM:
                    raise Unreachable(f"it does not offer the SASL mechanism {sasl_mechanism}")


def _address(server: str) -> tuple[str, int]:
    host, port = re.fullmatch(r"(.+?)(?::(\d+))?", server).groups()  # type: ignore[union-attr]
    return host.strip("[]"), int(port or 9092)


def _ask(connection: socket.socket, api: int, version: int, body: bytes = b"") -> bytes:
    """Give what follows the correlation id in the answer to a request without a client's name."""
    request = struct.pack(">hhih", api, version, 0, -1) + body
    connection.sendall(struct.pack(">i", len(request)) + request)
    (size,) = struct.unpack(">i", _receive(connection, 4))
    if not 4 <= size <= LONGEST_ANSWER:
        raise ConnectionError
    return _receive(connection, size)[4:]


def _receive(connection: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        chunk = connection.recv(size - len(received))
        if not chunk:
            raise ConnectionError
        received += chunk
    return received


def _reason(error: Exception, settings: Settings) -> str:
    if isinstance(error, ssl.SSLCertVerificationError) and "ostname" in error.verify_message:
        return f"{error.verify_message} (KAFKA_SSL_CHECK_HOSTNAME)"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message} (KAFKA_SSL_CAFILE)"
    if isinstance(error, ssl.SSLError) and "ALERT" in (error.reason or ""):
        if settings.ssl_certfile:
            return f"it does not accept the certificate in KAFKA_SSL_CERTFILE ({error.reason})"
        return f"it wants a certificate of its clients (KAFKA_SSL_CERTFILE; {error.reason})"
    if isinstance(error, TimeoutError):
        return f"no answer within {ANSWER_SECONDS:g} s"
    if isinstance(error, socket.gaierror):
        return "its name is not known"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, (ConnectionError, ssl.SSLError)):
        return (
            f"it does not answer as Kafka does (is it Kafka, with {settings.security_protocol} as "
            "KAFKA_SECURITY_PROTOCOL?)"
        )
    return str(error)
