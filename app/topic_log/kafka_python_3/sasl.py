"""SASL of kafka-python 3, with a password that may change between two connections, and refusals
that are told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kafka.net.connection import KafkaConnection
from kafka.net.sasl import get_sasl_mechanism, register_sasl_mechanism
from kafka.net.sasl.oauth import AbstractTokenProvider

from app.settings.security_checks import PASSWORD_MECHANISMS
from app.topic_log.adapter import SaslExchange

TokenProvider = AbstractTokenProvider
PASSWORD = "sasl_plain_password"


def sasl_exchange(host: str, options: Mapping[str, Any]) -> SaslExchange:
    exchange: SaslExchange = get_sasl_mechanism(options["sasl_mechanism"])(host=host, **options)
    return exchange


def _asking_for_the_password(mechanism: type) -> type:
    class Asking(mechanism):  # type: ignore[misc]
        def __init__(self, **config: Any) -> None:
            password = config[PASSWORD]
            super().__init__(**{**config, PASSWORD: password() if callable(password) else password})

    return Asking


async def _noting_refusals(connection: KafkaConnection, timeout_at: float | None = None) -> None:
    """Sign in. The client goes on to try where it is refused, and may take that for a connection
    that is lost: it drops what comes together with the connection's end."""
    try:
        await _sasl_authenticate(connection, timeout_at)
    except Exception:
        for option in (PASSWORD, "sasl_oauth_token_provider"):
            if hasattr(connection.config[option], "note_refusal"):
                connection.config[option].note_refusal()
        raise


_sasl_authenticate = KafkaConnection._sasl_authenticate
KafkaConnection._sasl_authenticate = _noting_refusals

for name in PASSWORD_MECHANISMS:
    register_sasl_mechanism(
        name, _asking_for_the_password(get_sasl_mechanism(name)), overwrite=True
    )
