"""The brokers of the tests of signing in let in, refuse and send away whom they say, as librdkafka
sees them."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

import pytest
from aws_msk_iam_sasl_signer.MSKAuthTokenProvider import generate_auth_token
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from tests.support import msk_broker
from tests.support.msk_tokens import REGION
from tests.support.secure_listeners import LISTENERS, PASSWORDS
from tests.support.token_server import unsecured_token
from tests.support.waiting import eventually

pytestmark = [pytest.mark.own_kafka, pytest.mark.xdist_group("security")]

# of the client by the broker, and of the broker by the client
REFUSALS = (KafkaError._AUTHENTICATION, KafkaError._SSL)


@pytest.fixture(scope="module")
def alices_topic(broker) -> str:
    """The name of one that alice may describe, and no other user."""
    name = f"signed-in-{uuid.uuid4().hex}"
    broker.admin.create_topics([NewTopic(name, 1, 1)])[name].result(10)
    broker.allow("alice", "topic", name, "describe")
    return name


class Client:
    """One of a listener, which has signed in when it knows what it may do with the topic."""

    def __init__(self, topic: str, config: dict[str, Any]) -> None:
        self._topic = topic
        self._errors: list[KafkaError] = []
        self.sign_ins = 0
        self._producer = Producer(
            {
                "error_cb": self._errors.append,
                "statistics.interval.ms": 100,
                "stats_cb": self._count,
                "log_level": 0,
                **config,
            }
        )

    def _count(self, statistics: str) -> None:
        brokers = json.loads(statistics)["brokers"].values()
        self.sign_ins = max(at["req"].get("SaslHandshake", 0) for at in brokers)

    def _asked(self) -> str:
        self._producer.poll(0.05)
        if any(error.code() in REFUSALS for error in self._errors):
            return "refused"
        try:
            about = self._producer.list_topics(self._topic, timeout=0.5).topics[self._topic]
        except KafkaException:
            return ""
        return "forbidden" if about.error else "allowed"

    def fares(self) -> str:
        """ "allowed" or "forbidden" to describe the topic, or "refused" before."""
        return eventually(self._asked)


@pytest.fixture
def client(broker, alices_topic):
    def client(listener: str, config: dict[str, Any]) -> Client:
        given = {
            "bootstrap.servers": broker.address(listener),
            "security.protocol": LISTENERS[listener],
            "ssl.ca.location": str(broker.ca),
        }
        return Client(alices_topic, given | config)

    return client


@pytest.fixture
def by_token(client):
    def by_token(listener: str, token: str) -> Client:
        given = token, time.time() + 3600
        return client(listener, {"sasl.mechanism": "OAUTHBEARER", "oauth_cb": lambda _: given})

    return by_token


@pytest.fixture
def by_password(broker, client):
    def by_password(listener: str, mechanism: str, password: str, user: str = "alice") -> Client:
        given = {"sasl.mechanism": mechanism, "sasl.username": user, "sasl.password": password}
        return client(listener, given)

    return by_password


@pytest.mark.parametrize("listener", ["OAUTH", "OAUTH_UNSECURED", "REAUTH"])
def test_a_token_makes_a_client_its_sub(broker, by_token, listener):
    token = unsecured_token if listener == "OAUTH_UNSECURED" else broker.tokens.token
    assert by_token(listener, token("alice")).fares() == "allowed"
    assert by_token(listener, token("bob")).fares() == "forbidden"
    assert by_token(listener, token("alice", -1)).fares() == "refused"


def test_takes_no_token_that_is_unsigned_or_for_others(broker, by_token):
    assert by_token("OAUTH", unsecured_token("alice")).fares() == "refused"
    assert by_token("OAUTH", broker.tokens.token("alice", aud="others")).fares() == "refused"
    assert by_token("OAUTH", broker.tokens.token("alice", iss="others")).fares() == "refused"


def test_takes_the_tokens_of_a_new_key_and_no_longer_those_of_the_one_before(broker, by_token):
    before = broker.tokens.token("alice")
    assert by_token("OAUTH", before).fares() == "allowed"
    broker.rotate_key()
    for listener in ("OAUTH", "REAUTH"):
        assert by_token(listener, broker.tokens.token("alice")).fares() == "allowed"
        assert by_token(listener, before).fares() == "refused"


@pytest.mark.parametrize("is_secure", [False, True])
def test_a_client_fetches_its_token_itself(broker, client, monkeypatch, is_secure):
    tokens = broker.tokens
    monkeypatch.setitem(tokens.secrets, "alice", "known")

    def fetching(secret: str) -> Client:
        given = {
            "sasl.mechanism": "OAUTHBEARER",
            "sasl.oauthbearer.method": "oidc",
            "sasl.oauthbearer.token.endpoint.url": tokens.secure_url if is_secure else tokens.url,
            "https.ca.location": str(broker.ca),
            "sasl.oauthbearer.client.id": "alice",
            "sasl.oauthbearer.client.secret": secret,
            "sasl.oauthbearer.scope": "kafka",
        }
        return client("OAUTH", given)

    assert fetching("known").fares() == "allowed"
    (asked,) = tokens.asked[-1:]
    assert (asked.client, asked.method) == ("alice", "client_secret_basic")
    assert asked.parameters == {"grant_type": "client_credentials", "scope": "kafka"}
    assert fetching("unknown").fares() == "refused"


def test_sessions_end_on_one_listener(broker, by_password, by_token):
    lasting = by_password("SASL_SSL", "PLAIN", broker.users["alice"])
    ending = [by_password("REAUTH", mechanism, broker.users["alice"]) for mechanism in PASSWORDS]
    ending.append(by_token("REAUTH", broker.tokens.token("alice")))
    for client in (lasting, *ending):
        assert client.fares() == "allowed"
    for client in ending:
        eventually(lambda client=client: client.fares() == "allowed" and client.sign_ins > 1)
    assert lasting.fares() == "allowed"
    assert lasting.sign_ins == 1


def test_a_password_of_scram_changes_and_no_other(broker, by_password):
    broker.set_password("carol", "before")
    for mechanism in PASSWORDS[1:]:
        assert by_password("SASL_SSL", mechanism, "before", "carol").fares() == "forbidden"
    broker.set_password("carol", "after")
    for mechanism in PASSWORDS[1:]:
        assert by_password("SASL_SSL", mechanism, "after", "carol").fares() == "forbidden"
        assert by_password("SASL_SSL", mechanism, "before", "carol").fares() == "refused"
        assert by_password("SASL_SSL", mechanism, broker.users["alice"]).fares() == "allowed"


def test_another_authority_is_that_of_one_listener_from_now_on(broker, client):
    renewed = broker.renew()
    assert client("RENEWED", {"ssl.ca.location": str(renewed)}).fares() == "allowed"
    assert client("RENEWED", {}).fares() == "refused"
    assert client("SSL", {}).fares() == "allowed"


@pytest.fixture(scope="module")
def msk():
    with msk_broker.running() as broker:
        yield broker


@pytest.fixture
def by_url(msk, monkeypatch):
    """A client with the signer of AWS, which takes credentials from the environment."""
    name = f"signed-in-{uuid.uuid4().hex}"
    admin = AdminClient({"bootstrap.servers": msk.kafka.address})
    admin.create_topics([NewTopic(name, 1, 1)])[name].result(10)

    def signed(_: str) -> tuple[str, float]:
        token, expires_ms = generate_auth_token(REGION)
        return token, expires_ms / 1000

    def by_url(oauth_cb=signed, **environ: str) -> Client:
        for variable, value in {**msk.environ, **environ}.items():
            monkeypatch.setenv(variable, value)
        given = {
            "bootstrap.servers": msk.address,
            "security.protocol": "SASL_SSL",
            "ssl.ca.location": str(msk.ca),
            "sasl.mechanism": "OAUTHBEARER",
            "oauth_cb": oauth_cb,
        }
        return Client(name, given)

    return by_url


def test_msk_lets_in_who_signs_with_a_key_that_it_knows(msk, by_url):
    known = msk.sign_ins
    client = by_url()
    assert client.fares() == "allowed"
    assert msk.sign_ins > known
    refused = len(msk.refusals)
    assert by_url(AWS_SECRET_ACCESS_KEY="unknown").fares() == "refused"
    assert by_url(AWS_ACCESS_KEY_ID="unknown").fares() == "refused"
    assert by_url(lambda _: (unsecured_token("alice"), time.time() + 60)).fares() == "refused"
    reasons = "\n".join(msk.refusals[refused:])
    assert "its signature is not right" in reasons
    assert "nobody has the access key unknown" in reasons
    assert "it is not a signed URL" in reasons


def test_msk_can_refuse_all_and_cut_off_all(msk, by_url, monkeypatch):
    known = msk.sign_ins
    client = by_url()

    def signs_in_again() -> bool:
        msk.cut_off()
        # with two connections at first
        return client.fares() == "allowed" and msk.sign_ins > known + 2

    eventually(signs_in_again)
    monkeypatch.setattr(msk, "refuses", True)
    assert by_url().fares() == "refused"
