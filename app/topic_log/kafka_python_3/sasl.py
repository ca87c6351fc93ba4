"""SASL of kafka-python 3, with a password that may change between two connections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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


for name in PASSWORD_MECHANISMS:
    register_sasl_mechanism(
        name, _asking_for_the_password(get_sasl_mechanism(name)), overwrite=True
    )
