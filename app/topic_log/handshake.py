"""The first words with a broker: which versions it knows, which SASL mechanisms, and who asks."""

from __future__ import annotations

import contextlib
import functools
import re
import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from typing import Any

from app.topic_log.adapter import SaslExchange
from app.topic_log.errors import Refused, TopicLogError, Unreachable

ANSWER_SECONDS = 2.0
LONGEST_ANSWER = 64 * 1024

# https://kafka.apache.org/protocol#protocol_api_keys
METADATA, SASL_HANDSHAKE, API_VERSIONS, SASL_AUTHENTICATE = 3, 17, 18, 36
# https://kafka.apache.org/protocol#protocol_error_codes
UNSUPPORTED_SASL_MECHANISM, ILLEGAL_SASL_STATE = 33, 34


class OtherProtocol(Exception):
    """The listener and the client do not speak the same."""


def talk(
    server: str,
    context: ssl.SSLContext | None,
    sasl_mechanism: str | None,
    new_exchange: Callable[[str], SaslExchange | None],
) -> None:
    """Ask what a client asks first.

    Args:
        context: None for a listener without TLS.
        sasl_mechanism: None for one without SASL.
        new_exchange: begins to sign in at a host; where it gives None, nobody signs in.

    Raises:
        Refused: it does not let this client in.
        OSError: it does not answer, or not as Kafka does.
        OtherProtocol: it does, and wants SASL or TLS, or neither.
        Unreachable: it does not offer this mechanism.
    """
    with connected(server, context) as connection:
        ask(connection, API_VERSIONS, version=0)
        if sasl_mechanism is None:
            # one that wants SASL ends the connection now; it asks for none of the topics
            ask(connection, METADATA, version=1, body=struct.pack(">i", 0))
            return
        error, offered = ask_for_sasl(connection, sasl_mechanism)
        if error == UNSUPPORTED_SASL_MECHANISM:
            raise Unreachable(
                f"it does not offer the SASL mechanism {sasl_mechanism}: "
                f"KAFKA_SASL_MECHANISM has to be {' or '.join(offered)}"
            )
        if error == ILLEGAL_SASL_STATE:
            raise OtherProtocol
        exchange = new_exchange(_address(server)[0])
        if exchange:
            _sign_in(connection, exchange)


def no_exchange(host: str) -> None:
    """Begin to sign in nowhere."""


@contextlib.contextmanager
def connected(server: str, context: ssl.SSLContext | None) -> Iterator[socket.socket]:
    host, port = _address(server)
    with socket.create_connection((host, port), ANSWER_SECONDS) as connection:
        if context is None:
            yield connection
            return
        with context.wrap_socket(connection, server_hostname=host) as secured:
            yield secured


def _address(server: str) -> tuple[str, int]:
    host, port = re.fullmatch(r"(.+?)(?::(\d+))?", server).groups()  # type: ignore[union-attr]
    return host.strip("[]"), int(port or 9092)


def ask_for_sasl(connection: socket.socket, mechanism: str) -> tuple[int, list[str]]:
    """Ask for a SASL mechanism; gives the error code, and the mechanisms that are offered."""
    name = mechanism.encode()
    body = struct.pack(">h", len(name)) + name
    answer = ask(connection, SASL_HANDSHAKE, version=1, body=body)
    try:
        error, count = struct.unpack_from(">hi", answer)
        offered, at = [], 6
        for _ in range(count):
            (size,) = struct.unpack_from(">h", answer, at)
            offered.append(answer[at + 2 : at + 2 + size].decode())
            at += 2 + size
    except (struct.error, UnicodeDecodeError) as unreadable:
        raise ConnectionError from unreadable
    return error, sorted(offered)


def _sign_in(connection: socket.socket, exchange: SaslExchange) -> None:
    """
    Raises:
        Refused: the broker's words are in the text.
    """
    while not exchange.is_done():
        said = _by_itself(exchange.auth_bytes)
        answer = ask(
            connection, SASL_AUTHENTICATE, version=0, body=struct.pack(">i", len(said)) + said
        )
        try:
            error, size = struct.unpack_from(">hh", answer)
            at = 4 + max(size, 0)
            if error:
                raise Refused(answer[4:at].decode(errors="replace"))
            (size,) = struct.unpack_from(">i", answer, at)
        except struct.error as unreadable:
            raise ConnectionError from unreadable
        _by_itself(functools.partial(exchange.receive, answer[at + 4 : at + 4 + max(size, 0)]))


def _by_itself(step: Callable[[], Any]) -> Any:
    """Take a step of a mechanism, each of which has errors of its own.

    Raises:
        Unreachable: it raises any other than those of this package.
    """
    try:
        return step()
    except TopicLogError:
        raise
    except Exception as error:
        told = f"signing in does not go on: {type(error).__name__}: {error}"
        raise Unreachable(told) from error


def ask(connection: socket.socket, api: int, version: int, body: bytes = b"") -> bytes:
    """Send a request; gives what follows the correlation id in the answer."""
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
