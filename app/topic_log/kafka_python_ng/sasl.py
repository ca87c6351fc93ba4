"""SASL of kafka-python-ng, with a password that may change between two connections.

Its own mechanisms are made for its connections only, so what is said before a connection of its own
is put together here.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from kafka.oauth import AbstractTokenProvider
from kafka.sasl import MECHANISMS, scram
from kafka.scram import ScramClient

from app.settings.security_checks import GSSAPI, OAUTHBEARER, PASSWORD_MECHANISMS
from app.topic_log.adapter import SaslExchange

TokenProvider = AbstractTokenProvider
PASSWORD = "sasl_plain_password"
# what the client says to a broker that has told why it does not take the token (RFC 7628, 3.2.3)
HAS_READ_WHY = b"\x01"

# it logs to the root logger, where a wrong password makes hundreds of lines
scram.log = logging.getLogger(scram.__name__)


def sasl_exchange(host: str, options: Mapping[str, Any]) -> SaslExchange | None:
    mechanism = options["sasl_mechanism"]
    if mechanism == GSSAPI:
        _require_ticket(options["sasl_kerberos_service_name"], host)
        return None
    if mechanism == OAUTHBEARER:
        provider = options["sasl_oauth_token_provider"]
        pairs = {"auth": f"Bearer {provider.token()}", **provider.extensions()}
        said = "".join(f"{name}={value}\x01" for name, value in pairs.items())
        return _OneMessage(f"n,,\x01{said}\x01".encode())
    user, password = options["sasl_plain_username"], options[PASSWORD]()
    if mechanism == "PLAIN":
        return _OneMessage(f"{user}\0{user}\0{password}".encode())
    return _Scram(ScramClient(user, password, mechanism))


def _require_ticket(service: str, host: str) -> None:
    """
    Raises:
        gssapi.exceptions.GSSError: Kerberos gives none for this service.
    """
    import gssapi  # of an extra

    name = gssapi.Name(f"{service}@{host}", gssapi.NameType.hostbased_service)
    gssapi.SecurityContext(name=name, usage="initiate").step()


class _OneMessage:
    """Nothing is the answer of a broker that is content (RFC 7628, and Kafka's own of PLAIN)."""

    def __init__(self, said: bytes) -> None:
        self._next = said
        self._is_done = False

    def auth_bytes(self) -> bytes:
        return self._next

    def receive(self, auth_bytes: bytes) -> None:
        self._is_done = not auth_bytes
        self._next = HAS_READ_WHY

    def is_done(self) -> bool:
        return self._is_done


class _Scram:
    def __init__(self, client: ScramClient) -> None:
        self._client = client
        self._answers = 0

    def auth_bytes(self) -> bytes:
        next_message = (self._client.first_message, self._client.final_message)[self._answers]
        said: str = next_message()
        return said.encode()

    def receive(self, auth_bytes: bytes) -> None:
        process = (
            self._client.process_server_first_message,
            self._client.process_server_final_message,
        )
        process[self._answers](auth_bytes.decode())
        self._answers += 1

    def is_done(self) -> bool:
        return self._answers == 2


class _AskingForThePassword:
    """A mechanism, as the client's connections take one."""

    def __init__(self, mechanism: ModuleType) -> None:
        self._mechanism = mechanism
        self.validate_config = mechanism.validate_config

    def try_authenticate(self, connection: Any, future: Any) -> Any:
        password = connection.config[PASSWORD]
        if not callable(password):
            return self._mechanism.try_authenticate(connection, future)
        # only for as long as it signs in: it does so again at each reconnection
        connection.config[PASSWORD] = password()
        try:
            return self._mechanism.try_authenticate(connection, future)
        finally:
            connection.config[PASSWORD] = password
            # the client goes on to try, and says of it only that the connection was reset
            if future.failed():
                password.note_refusal()


for name in PASSWORD_MECHANISMS:
    MECHANISMS[name] = _AskingForThePassword(MECHANISMS[name])
