"""Who signs in, and goes on to follow while passwords, tokens and certificates change."""

from __future__ import annotations

import json
import logging
import time

import pytest
from confluent_kafka import Producer

from app.settings import Settings
from app.topic_log import tokens
from app.topic_log.sign_in import refusals_of
from tests.support.network import network
from tests.support.secret_files import SecretFiles
from tests.support.sessions import connections_to, connects_again
from tests.support.token_server import FAILS, REFUSES, unsecured_token
from tests.support.topics import Topic
from tests.support.waiting import eventually

pytestmark = [pytest.mark.own_kafka, pytest.mark.xdist_group("security")]

SCRAM = "SCRAM-SHA-512"
NEXT_PASSWORD = "the next s3cret"


@pytest.fixture
def topic(broker, name) -> Topic:
    """As one without a name writes to it, who may do all."""
    return Topic(name, broker.kafka.address)


@pytest.fixture(autouse=True)
def as_it_was(broker):
    """The passwords, and the token server, whatever a test has done to them."""
    tokens = vars(broker.tokens).copy()
    secrets = dict(broker.tokens.secrets)
    yield
    broker.tokens.fixed_answer, broker.tokens.hangs = None, False
    broker.tokens.lifetime_seconds = tokens["lifetime_seconds"]
    broker.tokens.secrets = secrets


@pytest.fixture
def password_changes(broker):
    def change(password: str) -> None:
        broker.set_password("alice", password)

    yield change
    broker.set_password("alice", broker.users["alice"])


def own_lines(caplog) -> list[str]:
    """Warnings of the service, but for that of a new topic."""
    lines = [
        line.getMessage()
        for line in caplog.records
        if line.name.startswith("app.") and line.levelno >= logging.WARNING
    ]
    return [line for line in lines if not line.startswith("Created the topic")]


def unsecured() -> tuple[str, float]:
    return unsecured_token("alice"), time.time() + 60


def test_follows_with_tokens_of_an_endpoint(start, environ, broker, topic, caplog):
    service = start(environ("OAUTH", "OAUTHBEARER", KAFKA_OAUTH_SCOPE="kafka"))
    assert service.first_state() == 0
    topic.send_state(77)
    service.comes_to(77)
    assert own_lines(caplog) == []
    asked = broker.tokens.asked[-1]
    assert (asked.client, asked.method) == ("alice", "client_secret_basic")
    assert asked.parameters["scope"] == "kafka"


def test_the_endpoint_is_asked_by_https(start, environ, broker, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(broker.ca))
    given = environ("OAUTH", "OAUTHBEARER", KAFKA_OAUTH_TOKEN_URL=broker.tokens.secure_url)
    assert start(given).first_state() == 0


def test_follows_with_tokens_of_ones_own(start, environ, topic):
    given = {
        name: value
        for name, value in environ("OAUTH_UNSECURED", "OAUTHBEARER").items()
        if not name.startswith("KAFKA_OAUTH")
    }
    service = start({**given, "KAFKA_OAUTH_TOKEN_PROVIDER": f"{__name__}.unsecured"})
    assert service.first_state() == 0
    topic.send_state(77)
    service.comes_to(77)


def last_error(service) -> str:
    return (service.status["last_error"] or {}).get("error", "")


def reason(service) -> str:
    """Why it is not ready, once it says more than that it tries."""
    eventually(lambda: service.status["failures"])
    answer = service.get("/readyz")
    assert answer.status_code == 503
    return answer.json["detail"]


@pytest.mark.parametrize(
    ("trouble", "expected"),
    [
        ({"fixed_answer": REFUSES}, "answers 401 invalid_client to the client alice"),
        ({"fixed_answer": FAILS}, "answers 500"),
        ({"fixed_answer": (200, '{"token_type": "Bearer"}')}, "gives none that can be read"),
        ({"fixed_answer": (200, "[]")}, "gives none that can be read"),
        ({"hangs": True}, "does not answer: ReadTimeout"),
        ({"lifetime_seconds": -10}, "has expired already"),
    ],
)
def test_says_why_there_is_no_token(start, environ, broker, monkeypatch, caplog, trouble, expected):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr("app.topic_log.token_sources.ENDPOINT_SECONDS", 0.5)
    for name, value in trouble.items():
        setattr(broker.tokens, name, value)
    # nobody has asked with this scope, so that there is no token from before
    service = start(environ("OAUTH", "OAUTHBEARER", KAFKA_OAUTH_SCOPE=str(trouble)))
    told = reason(service)
    assert told.startswith("no token can be had: ")
    assert expected in told
    assert broker.tokens.secrets["alice"] not in caplog.text + service.get("/status").text


def test_says_that_no_endpoint_is_there(start, environ):
    url = "http://localhost:1/token"
    told = reason(start(environ("OAUTH", "OAUTHBEARER", KAFKA_OAUTH_TOKEN_URL=url)))
    assert told == f"no token can be had: {url} does not answer: ConnectionError"


def test_says_that_the_broker_does_not_accept_the_token(start, environ, broker, name):
    given = environ("OAUTH", "OAUTHBEARER", KAFKA_OAUTH_SCOPE="of a key that the broker knows not")
    token = unsecured_token("alice")
    broker.tokens.fixed_answer = (200, json.dumps({"access_token": token, "expires_in": 60}))
    told = reason(start(given))
    server = given["KAFKA_BOOTSTRAP_SERVERS"]
    assert told.startswith(f"{server} answers, and then refuses the client alice: it does not acc")
    assert "invalid_token" in told
    assert token not in told


def test_a_token_of_a_key_that_the_broker_knows_no_more_is_replaced_at_once(
    start, environ, broker, topic
):
    given = environ("OAUTH", "OAUTHBEARER", KAFKA_OAUTH_SCOPE="of the key before")
    assert start(given).first_state() == 0
    time.sleep(tokens.NEW_SECONDS)  # or it would be as new as the next one
    broker.rotate_key()
    service = start(given)
    assert service.first_state() == 0
    assert service.status["failures"] == 0


def test_a_password_that_changes_on_the_broker_and_then_in_the_file_is_used(
    start, environ, broker, topic, password_changes, tmp_path, caplog
):
    files = SecretFiles(tmp_path / "secret", {"password": broker.users["alice"]})
    given = environ("REAUTH", SCRAM, KAFKA_SASL_PASSWORD="")
    given["KAFKA_SASL_PASSWORD_FILE"] = str(files.path("password"))
    service = start(given)
    topic.send_state("before")
    service.comes_to("before")
    password_changes(NEXT_PASSWORD)
    refused = "answers, and then refuses the user alice: the user name or the password is wrong"
    eventually(lambda: refused in last_error(service))
    assert service.get().json == {"state": "before"}
    files.change({"password": NEXT_PASSWORD})
    topic.send_state("after")
    service.comes_to("after")
    assert len([line for line in own_lines(caplog) if refused in line]) == 1
    # the clients' own: one each, or as many as are tried while one opens
    assert refusals_of(Settings.from_environ(given).security).count <= 10
    assert NEXT_PASSWORD not in caplog.text + service.get("/status").text


def test_a_password_that_changes_in_the_file_and_then_on_the_broker_is_used(
    start, environ, broker, topic, password_changes, tmp_path
):
    files = SecretFiles(tmp_path / "secret", {"password": broker.users["alice"]})
    # who commits might connect between the two changes
    given = environ("SASL_SSL", SCRAM, KAFKA_SASL_PASSWORD="", KAFKA_COMMIT_POSITIONS="false")
    service = start({**given, "KAFKA_SASL_PASSWORD_FILE": str(files.path("password"))})
    assert service.first_state() == 0
    files.change({"password": NEXT_PASSWORD})
    password_changes(NEXT_PASSWORD)
    topic.send_state("after")
    service.comes_to("after")
    assert service.status["failures"] == 0


@pytest.mark.parametrize("mechanism", ["PLAIN", SCRAM])
def test_a_refusal_costs_one_connection_and_then_half_a_minute(start, environ, broker, mechanism):
    _, _, port = broker.address("SASL_SSL").partition(":")
    with network(int(port)) as between:
        given = environ("SASL_SSL", mechanism, KAFKA_SASL_PASSWORD="wr0ng s3cret")
        service = start({**given, "KAFKA_BOOTSTRAP_SERVERS": f"localhost:{between.port}"})
        assert "the password is wrong" in reason(service)
        began = time.monotonic()
        eventually(lambda: time.monotonic() > began + 4)
        assert between.connections == 1
    assert service.status["failures"] == 1
    assert service.get("/healthz").status_code == 200


def test_a_certificate_that_is_replaced_is_used_for_the_next_connection(
    start, environ, broker, topic, tmp_path
):
    """The one before has another name, which may nothing."""
    files = SecretFiles(
        tmp_path / "secret",
        {
            "ca.pem": broker.unknown_ca.read_bytes(),
            "tls.crt": broker.client_cert.read_bytes(),
            "tls.key": broker.client_key_encrypted.read_bytes(),
            "password": broker.client_key_password,
        },
    )
    given = environ("MUTUAL") | {
        "KAFKA_SSL_CAFILE": str(files.path("ca.pem")),
        "KAFKA_SSL_CERTFILE": str(files.path("tls.crt")),
        "KAFKA_SSL_KEYFILE": str(files.path("tls.key")),
        "KAFKA_SSL_KEY_PASSWORD_FILE": str(files.path("password")),
    }
    service = start(given)
    assert "its certificate is not accepted" in reason(service)
    files.change({"ca.pem": broker.ca.read_bytes()})
    assert service.first_state() == 0
    topic.send_state(77)
    service.comes_to(77)


def test_an_authority_that_is_replaced_is_used_for_the_next_connection(
    start, environ, broker, topic, tmp_path
):
    files = SecretFiles(tmp_path / "secret", {"ca.pem": broker.renew().read_bytes()})
    given = environ("RENEWED", KAFKA_SSL_CAFILE=str(files.path("ca.pem")))
    service = start(given)
    assert service.first_state() == 0
    authority = broker.renew()
    files.change({"ca.pem": authority.read_bytes()})
    topic.send_state("followed on")
    service.comes_to("followed on")


def test_the_endpoint_is_away_for_as_long_as_the_token_lives(start, environ, broker, topic, caplog):
    broker.tokens.lifetime_seconds = 10
    service = start(environ("REAUTH", "OAUTHBEARER", KAFKA_OAUTH_SCOPE="of ten seconds"))
    assert service.first_state() == 0
    broker.tokens.fixed_answer = (503, "away")
    eventually(lambda: "the one before still counts" in caplog.text)
    topic.send_state("while it is away")
    service.comes_to("while it is away")
    eventually(lambda: "no token can be had" in last_error(service))
    assert service.get().json == {"state": "while it is away"}
    broker.tokens.fixed_answer = None
    topic.send_state("when it is back")
    service.comes_to("when it is back")


@pytest.mark.alone
@pytest.mark.timeout(300)
@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", SCRAM, "OAUTHBEARER"])
def test_sessions_that_end_every_five_seconds_lose_nothing(
    start, environ, broker, topic, mechanism, caplog, pytestconfig
):
    caplog.set_level(logging.INFO)
    broker.tokens.lifetime_seconds = 8
    scope = "of eight seconds" if mechanism == "OAUTHBEARER" else ""
    service = start(environ("REAUTH", mechanism, KAFKA_OAUTH_SCOPE=scope))
    service.first_state()
    topic.send_state(0)
    eventually(lambda: service.status["fetches"] > 1)
    first = connections_to(broker.address("REAUTH"))
    caplog.clear()
    producer = Producer({"bootstrap.servers": topic.servers, "linger.ms": 0})
    end = time.monotonic() + pytestconfig.getoption("--session-seconds")
    longest = number = 0
    while time.monotonic() < end:
        number += 1
        topic.send_state(number, producer=producer)
        sent_at = time.monotonic()
        service.comes_to(number)
        longest = max(longest, time.monotonic() - sent_at)
    assert longest < 1.0
    assert connections_to(broker.address("REAUTH")).isdisjoint(first) == connects_again(mechanism)
    assert own_lines(caplog) == []
    assert service.status["failures"] == 0
    assert len([line for line in caplog.messages if "Kafka client says" in line]) < 5
