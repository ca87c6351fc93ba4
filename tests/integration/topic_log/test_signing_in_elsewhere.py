"""Signing in where somebody else says who one is: AWS, and Kerberos."""

from __future__ import annotations

import importlib.util
import logging
import time
from collections.abc import Iterator

import pytest

from tests.support import kerberos, msk_broker, secure_broker
from tests.support.kerberos import Kerberos
from tests.support.msk_broker import MskBroker
from tests.support.msk_tokens import REGION
from tests.support.processes import ended, kafka_state, producer
from tests.support.secure_broker import SecureBroker
from tests.support.secure_listeners import SESSION_SECONDS
from tests.support.sessions import connections_to, connects_again
from tests.support.topics import Topic, new_topic
from tests.support.waiting import eventually

pytestmark = [pytest.mark.own_kafka]


@pytest.fixture(scope="module")
def msk() -> Iterator[MskBroker]:
    with msk_broker.running() as broker:
        yield broker


@pytest.fixture
def aws(msk, monkeypatch) -> None:
    for name, value in {**msk.environ, "AWS_REGION": REGION}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def msk_topic(msk) -> Topic:
    return new_topic(msk.kafka.address)


def with_iam(msk: MskBroker, topic: Topic) -> dict[str, str]:
    return {
        "KAFKA_TOPIC": topic.name,
        "KAFKA_BOOTSTRAP_SERVERS": msk.address,
        "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "KAFKA_SSL_CAFILE": str(msk.ca),
        "KAFKA_SASL_MECHANISM": "OAUTHBEARER",
        "KAFKA_OAUTH_TOKEN_PROVIDER": "msk-iam",
    }


@pytest.mark.xdist_group("msk")
def test_follows_a_cluster_of_msk(start, msk, aws, msk_topic, caplog):
    caplog.set_level(logging.DEBUG)
    refused = msk.refusals
    service = start(with_iam(msk, msk_topic))
    assert service.first_state() == 0
    msk.cut_off()
    msk_topic.send_state(77)
    service.comes_to(77)
    assert msk.sign_ins > 1
    assert msk.refusals == refused
    assert msk.environ["AWS_SECRET_ACCESS_KEY"] not in caplog.text


@pytest.mark.xdist_group("msk")
def test_says_that_msk_refuses(start, msk, aws, msk_topic, monkeypatch):
    monkeypatch.setattr(msk, "refuses", True)
    service = start({**with_iam(msk, msk_topic), "KAFKA_CLIENT_ID": "refused"})
    eventually(lambda: service.status["failures"])
    told = service.get("/readyz").json["detail"]
    assert "answers, and then refuses the bearer of a token by msk-iam" in told
    assert "Access denied" in told


@pytest.mark.xdist_group("msk")
@pytest.mark.parametrize(
    ("missing", "expected"),
    [("AWS_REGION", "AWS_REGION is not set"), ("AWS_ACCESS_KEY_ID", "AWS gives no credentials: ")],
)
def test_says_what_aws_does_not_know(msk, aws, msk_topic, monkeypatch, missing, expected):
    monkeypatch.delenv(missing)
    said = ended([*kafka_state(), "check"], **with_iam(msk, msk_topic))
    assert said.returncode == 1
    assert expected in said.stdout


@pytest.mark.xdist_group("msk")
def test_the_producer_signs_in_too(start, msk, aws, msk_topic):
    produced = producer("--state", "77", **with_iam(msk, msk_topic))
    assert produced.returncode == 0, produced.stderr
    assert start(with_iam(msk, msk_topic)).first_state() == 77


@pytest.fixture(scope="module")
def realm() -> Iterator[Kerberos]:
    if not importlib.util.find_spec("gssapi"):
        pytest.skip("there is no package gssapi here: make .venv/with-gssapi")
    with kerberos.running() as realm:
        yield realm


@pytest.fixture(scope="module")
def kerberized(realm) -> Iterator[SecureBroker]:
    with secure_broker.running(kerberos=realm) as broker:
        yield broker


def with_kerberos(broker: SecureBroker, topic: str) -> dict[str, str]:
    return {
        "KAFKA_TOPIC": topic,
        "KAFKA_BOOTSTRAP_SERVERS": broker.address("GSSAPI"),
        "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "KAFKA_SSL_CAFILE": str(broker.ca),
        "KAFKA_SASL_MECHANISM": "GSSAPI",
    }


@pytest.mark.xdist_group("kerberos")
def test_follows_as_a_principal_of_kerberos_whose_sessions_end(
    start, kerberized, realm, monkeypatch
):
    for name, value in realm.environ("alice").items():
        monkeypatch.setenv(name, value)
    topic = Topic(f"kerberized-{time.time_ns()}", kerberized.kafka.address)
    kerberized.allow("alice", "topic", topic.name, "describe", "create", "read", "write")
    kerberized.allow("alice", "group", "*", "read", "delete")
    service = start(with_kerberos(kerberized, topic.name))
    assert service.first_state() == 0
    topic.send_state(0)
    first = connections_to(kerberized.address("GSSAPI"))
    end = time.monotonic() + 2 * SESSION_SECONDS + 1
    number = 0
    while time.monotonic() < end:
        number += 1
        topic.send_state(number)
        service.comes_to(number)
    assert connections_to(kerberized.address("GSSAPI")).isdisjoint(first) == connects_again(
        "GSSAPI"
    )
    assert service.status["failures"] == 0


@pytest.mark.xdist_group("kerberos")
def test_says_that_there_is_no_ticket(kerberized, realm):
    nobody = {
        **realm.environ("alice"),
        "KRB5_CLIENT_KTNAME": "FILE:/nowhere",
        "KRB5CCNAME": "FILE:/nowhere",
    }
    given = with_kerberos(kerberized, "kerberized") | nobody
    said = ended([*kafka_state(), "check"], **given)
    assert said.returncode == 1
    assert "Kerberos" in said.stdout
