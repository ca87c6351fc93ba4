"""A broker with locks, for the tests of the group `security`."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator

import pytest

from app import create_app
from app.settings import Settings
from tests.support import secure_broker
from tests.support.application import Service
from tests.support.secure_broker import SecureBroker
from tests.support.secure_listeners import LISTENERS


@pytest.fixture(scope="session")
def broker() -> Iterator[SecureBroker]:
    with secure_broker.running() as broker:
        yield broker


@pytest.fixture
def name(broker: SecureBroker) -> str:
    """The name of a topic that alice and the client with a certificate may do everything with."""
    name = f"secure-{uuid.uuid4().hex}"
    for user in ("alice", broker.client_user):
        broker.allow(user, "topic", name, "describe", "create", "read", "write")
        broker.allow(user, "group", "*", "read", "delete")
    return name


@pytest.fixture
def environ(broker: SecureBroker, name: str) -> Callable[..., dict[str, str]]:
    """What the environment holds for one of the broker's listeners; with a mechanism it is
    alice's."""

    def environ(listener: str, mechanism: str = "", **others: str) -> dict[str, str]:
        protocol = LISTENERS[listener]
        given = {
            "KAFKA_TOPIC": name,
            "KAFKA_BOOTSTRAP_SERVERS": broker.address(listener),
            "KAFKA_SECURITY_PROTOCOL": protocol,
        }
        if protocol.endswith("SSL"):
            given["KAFKA_SSL_CAFILE"] = str(broker.ca)
        if listener == "MUTUAL":
            given["KAFKA_SSL_CERTFILE"] = str(broker.client_cert)
            given["KAFKA_SSL_KEYFILE"] = str(broker.client_key)
        if mechanism:
            given["KAFKA_SASL_MECHANISM"] = mechanism
        if mechanism == "OAUTHBEARER":
            given["KAFKA_OAUTH_TOKEN_URL"] = broker.tokens.url
            given["KAFKA_OAUTH_CLIENT_ID"] = "alice"
            given["KAFKA_OAUTH_CLIENT_SECRET"] = broker.tokens.secrets["alice"]
        elif mechanism:
            given["KAFKA_SASL_USERNAME"] = "alice"
            given["KAFKA_SASL_PASSWORD"] = broker.users["alice"]
        return given | others

    return environ


@pytest.fixture
def start() -> Iterator[Callable[[dict[str, str]], Service]]:
    """Start the service with these variables; it is stopped after the test."""
    with contextlib.ExitStack() as services:

        def start(environ: dict[str, str]) -> Service:
            service = Service(create_app(Settings.from_environ(environ)))
            services.callback(service.consumer.stop, 10)
            return service

        yield start
