"""Find out what keeps a broker from being reached, before the client is asked to.

The clients say of an absent broker, an unknown certificate and a wrong password alike that there
is no broker, and say it in dozens of log lines a minute. This says which, and costs one short
connection.
"""

from __future__ import annotations

import re
import socket
import ssl
import struct
from typing import TYPE_CHECKING

from app.topic_log.client import TopicLogError

if TYPE_CHECKING:
    from app.settings import Settings

ANSWER_SECONDS = 2.0
LONGEST_ANSWER = 64 * 1024

# https://kafka.apache.org/protocol#protocol_api_keys
API_VERSIONS, SASL_HANDSHAKE = 18, 17
UNSUPPORTED_SASL_MECHANISM = 33


class Unreachable(TopicLogError):
    """No broker can be talked to; the text says for each of them why."""


def require_reachable(settings: Settings) -> None:
    """Talk to one broker after the other until one answers as Kafka, up to its authentication.

    Raises:
        Unreachable: none does.
        OSError: a file of certificates or keys can no longer be read.
    """
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
            if sasl_mechanism:
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
        raise Unreachable("what answers is not Kafka")
    return _receive(connection, size)[4:]


def _receive(connection: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        chunk = connection.recv(size - len(received))
        if not chunk:
            raise ConnectionResetError
        received += chunk
    return received


def _reason(error: Exception, settings: Settings) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message} (KAFKA_SSL_CAFILE)"
    if isinstance(error, ssl.SSLError):
        return f"TLS fails: {error.reason} (KAFKA_SECURITY_PROTOCOL, KAFKA_SSL_CERTFILE)"
    if isinstance(error, TimeoutError):
        return f"no answer within {ANSWER_SECONDS:g} s"
    if isinstance(error, socket.gaierror):
        return "its name is not known"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, ConnectionError):
        return (
            f"it ends the connection (is it Kafka, with {settings.security_protocol} as "
            "KAFKA_SECURITY_PROTOCOL?)"
        )
    return str(error)
