"""Who may follow, and what an operator reads where something is missing: a broker with locks."""

from __future__ import annotations

import logging
import subprocess
import uuid

import pytest

from tests.support.application import Service
from tests.support.processes import ended, free_port, gunicorn, kafka_state, producer, running
from tests.support.waiting import eventually

pytestmark = [pytest.mark.own_kafka, pytest.mark.xdist_group("security")]

MECHANISMS = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
WRONG = "wr0ng: secret's \\ one"
OFFERED = ", ".join(MECHANISMS)
NO_FILES = dict.fromkeys(["KAFKA_SSL_CAFILE", "KAFKA_SSL_CERTFILE", "KAFKA_SSL_KEYFILE"], "")
SASL = {
    "KAFKA_SASL_MECHANISM": "PLAIN",
    "KAFKA_SASL_USERNAME": "alice",
    "KAFKA_SASL_PASSWORD": "anything",
}


def produce(environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return producer("--state", "77", **environ)


def own_lines(caplog) -> list[str]:
    """Those of the service: pytest shows what the client says too, which has its own way out."""
    lines = [line.getMessage() for line in caplog.records if line.name.startswith("app.")]
    return [line for line in lines if not line.startswith("Created the topic")]


def reason(service: Service) -> str:
    """Why it is not ready, once it says more than that it tries."""

    def detail() -> str:
        tried = service.status["failures"]
        answer = service.get("/readyz")
        assert answer.status_code == 503
        return answer.json["detail"] if tried else ""

    return eventually(detail)


@pytest.mark.parametrize(
    ("listener", "mechanism"),
    [
        ("PLAINTEXT", ""),
        ("SSL", ""),
        ("MUTUAL", ""),
        *[("SASL_PLAINTEXT", mechanism) for mechanism in MECHANISMS],
        *[("SASL_SSL", mechanism) for mechanism in MECHANISMS],
    ],
)
def test_follows_and_produces_over_every_protocol(start, environ, listener, mechanism, caplog):
    caplog.set_level(logging.WARNING)
    given = environ(listener, mechanism)
    service = start(given)
    assert service.first_state() == 0
    produced = produce(given)
    assert produced.returncode == 0, produced.stderr
    service.comes_to(77)
    assert own_lines(caplog) == []


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_wrong_password_is_named_and_never_shown(start, environ, mechanism, caplog):
    caplog.set_level(logging.DEBUG)
    given = environ("SASL_SSL", mechanism, KAFKA_SASL_PASSWORD=WRONG)
    expected = (
        f"{given['KAFKA_BOOTSTRAP_SERVERS']} answers, and then refuses the user alice: the user "
        f"name or the password is wrong for {mechanism}"
    )
    service = start(given)
    assert reason(service) == expected
    assert len([line for line in own_lines(caplog) if expected in line]) == 1
    produced = produce(given)
    assert produced.returncode == 1
    assert expected in produced.stderr
    for shown in (caplog.text, produced.stdout + produced.stderr, service.get("/status").text):
        assert "wr0ng" not in shown


@pytest.mark.parametrize(
    ("listener", "others", "expected"),
    [
        (
            "SSL",
            {"KAFKA_SSL_CAFILE": "{unknown_ca}"},
            "its certificate is not accepted: unable to get local issuer certificate",
        ),
        (
            "WRONG_HOST",
            {},
            (
                "its certificate is not accepted: Hostname mismatch, certificate is not valid for "
                "'localhost'. (KAFKA_SSL_CHECK_HOSTNAME)"
            ),
        ),
        (
            "MUTUAL",
            {"KAFKA_SSL_CERTFILE": "", "KAFKA_SSL_KEYFILE": ""},
            "it wants a certificate of its clients (KAFKA_SSL_CERTFILE;",
        ),
        (
            "MUTUAL",
            {
                "KAFKA_SSL_CERTFILE": "",
                "KAFKA_SSL_KEYFILE": "",
                "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
                **SASL,
            },
            "it wants a certificate of its clients (KAFKA_SSL_CERTFILE;",
        ),
        (
            "MUTUAL",
            {"KAFKA_SSL_CERTFILE": "{unknown_cert}", "KAFKA_SSL_KEYFILE": "{unknown_key}"},
            "it does not accept the certificate in KAFKA_SSL_CERTFILE",
        ),
        (
            "SSL",
            {"KAFKA_SECURITY_PROTOCOL": "PLAINTEXT", "KAFKA_SSL_CAFILE": ""},
            "it speaks TLS: KAFKA_SECURITY_PROTOCOL is PLAINTEXT, and has to be SSL",
        ),
        (
            "MUTUAL",
            {"KAFKA_SECURITY_PROTOCOL": "PLAINTEXT", **NO_FILES},
            "it speaks TLS: KAFKA_SECURITY_PROTOCOL is PLAINTEXT, and has to be SSL",
        ),
        (
            "PLAINTEXT",
            {"KAFKA_SECURITY_PROTOCOL": "SSL"},
            "it does not speak TLS: KAFKA_SECURITY_PROTOCOL is SSL, and has to be PLAINTEXT",
        ),
        (
            "SASL_PLAINTEXT",
            {"KAFKA_SECURITY_PROTOCOL": "PLAINTEXT"},
            (
                f"it wants SASL, and offers {OFFERED}: KAFKA_SECURITY_PROTOCOL is PLAINTEXT, and "
                "has to be SASL_PLAINTEXT"
            ),
        ),
        (
            "SASL_SSL",
            {"KAFKA_SECURITY_PROTOCOL": "SSL"},
            (
                f"it wants SASL, and offers {OFFERED}: KAFKA_SECURITY_PROTOCOL is SSL, and has to "
                "be SASL_SSL"
            ),
        ),
        (
            "PLAINTEXT",
            {"KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT", **SASL},
            "it has no SASL: KAFKA_SECURITY_PROTOCOL is SASL_PLAINTEXT, and has to be PLAINTEXT",
        ),
        (
            "SSL",
            {"KAFKA_SECURITY_PROTOCOL": "SASL_SSL", **SASL},
            "it has no SASL: KAFKA_SECURITY_PROTOCOL is SASL_SSL, and has to be SSL",
        ),
        (
            "SASL_SSL",
            {"KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT", "KAFKA_SSL_CAFILE": "", **SASL},
            "it speaks TLS: KAFKA_SECURITY_PROTOCOL is SASL_PLAINTEXT, and has to be SASL_SSL",
        ),
        (
            "SASL_SSL",
            {"KAFKA_SECURITY_PROTOCOL": "PLAINTEXT", "KAFKA_SSL_CAFILE": ""},
            (
                f"it speaks TLS; it wants SASL, and offers {OFFERED}: KAFKA_SECURITY_PROTOCOL is "
                "PLAINTEXT, and has to be SASL_SSL"
            ),
        ),
        (
            "SASL_PLAINTEXT",
            {"KAFKA_SECURITY_PROTOCOL": "SASL_SSL", **SASL},
            (
                "it does not speak TLS: KAFKA_SECURITY_PROTOCOL is SASL_SSL, and has to be "
                "SASL_PLAINTEXT"
            ),
        ),
    ],
)
def test_says_what_is_wrong_with_the_connection(start, environ, broker, listener, others, expected):
    files = {name: value.format_map(vars(broker)) for name, value in others.items()}
    given = environ(listener, **files)
    assert expected in reason(start(given))
    assert expected in produce(given).stderr


def test_says_which_mechanism_is_not_offered(start, environ):
    service = start(environ("ONLY_PLAIN", "SCRAM-SHA-256"))
    assert reason(service).endswith(
        "it does not offer the SASL mechanism SCRAM-SHA-256: KAFKA_SASL_MECHANISM has to be PLAIN"
    )


def test_another_hosts_certificate_is_accepted_where_that_is_asked_for(start, environ):
    assert start(environ("WRONG_HOST", KAFKA_SSL_CHECK_HOSTNAME="false")).first_state() == 0


def test_names_the_missing_acls_and_goes_on_when_they_are_there(start, environ, broker, caplog):
    caplog.set_level(logging.WARNING)
    name = f"locked-{uuid.uuid4().hex}"
    given = environ("SASL_PLAINTEXT", "PLAIN", KAFKA_TOPIC=name)
    service = start(given)
    follow = f"the ACLs do not let the user alice follow {name}: it needs DESCRIBE and READ"
    create = (
        f"the topic {name} does not exist, and the ACLs do not let the user alice create it: "
        "it needs CREATE on the topic or the cluster"
    )
    assert reason(service) == follow
    broker.allow("alice", "topic", name, "describe")
    eventually(lambda: reason(service) == create)
    broker.allow("alice", "topic", name, "create")
    eventually(lambda: reason(service) == follow)
    broker.allow("alice", "topic", name, "read")
    assert service.first_state() == 0
    for line in (follow, create):
        assert len([logged for logged in own_lines(caplog) if line in logged]) <= 2
    assert len(own_lines(caplog)) < 10


def check(environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return ended([*kafka_state(), "check"], **environ)


def test_check_names_the_acl_that_is_missing_next(environ, broker):
    name = f"locked-{uuid.uuid4().hex}"
    given = environ("SASL_PLAINTEXT", "PLAIN", KAFKA_TOPIC=name)
    said = check(given)
    assert said.returncode == 1
    assert (
        "the ACLs hide it: the user alice needs DESCRIBE and READ to follow it, and CREATE"
        in said.stdout
    )
    broker.allow("alice", "topic", name, "describe", "create")
    eventually(lambda: "it does not exist; the service creates it" in check(given).stdout)
    assert produce(environ("PLAINTEXT", KAFKA_TOPIC=name)).returncode == 0
    said = check(given)
    assert said.returncode == 1
    assert f"follow {name}: it needs DESCRIBE and READ" in said.stdout
    broker.allow("alice", "topic", name, "read")
    eventually(lambda: check(given).returncode == 0)
    assert "security: SASL_PLAINTEXT, the user alice" in check(given).stdout


def test_check_goes_on_where_the_group_is_forbidden(environ, broker):
    name = f"groupless-{uuid.uuid4().hex}"
    broker.allow("bob", "topic", name, "describe", "create", "read")
    assert produce(environ("PLAINTEXT", KAFKA_TOPIC=name)).returncode == 0
    bob = {
        "KAFKA_TOPIC": name,
        "KAFKA_SASL_USERNAME": "bob",
        "KAFKA_SASL_PASSWORD": broker.users["bob"],
    }
    said = check(environ("SASL_PLAINTEXT", "SCRAM-SHA-256", **bob))
    assert said.returncode == 0, said.stdout
    assert "note   ACLs of the groups group-*: they are refused" in said.stdout
    assert broker.users["bob"] not in said.stdout


@pytest.mark.parametrize("protocol", ["SASL_PLAINTEXT", "SSL"])
def test_check_says_what_the_listener_does_not_speak(environ, broker, protocol):
    given = environ("PLAINTEXT", KAFKA_SECURITY_PROTOCOL=protocol)
    if protocol.startswith("SASL"):
        given["KAFKA_SASL_MECHANISM"] = "PLAIN"
        given["KAFKA_SASL_USERNAME"], given["KAFKA_SASL_PASSWORD"] = "alice", broker.users["alice"]
    said = check(given)
    assert said.returncode == 1
    assert "KAFKA_SECURITY_PROTOCOL is" in said.stdout
    assert "has to be PLAINTEXT" in said.stdout


def test_without_the_right_to_write_the_producer_says_so(environ, broker):
    name = f"locked-{uuid.uuid4().hex}"
    broker.allow("alice", "topic", name, "describe", "create", "read")
    given = environ("SASL_PLAINTEXT", "PLAIN", KAFKA_TOPIC=name)
    produced = produce(given)
    assert produced.returncode == 1
    assert "the ACLs do not let the user alice write to" in produced.stderr


def test_follows_without_committing_where_the_group_is_forbidden(start, environ, broker, caplog):
    caplog.set_level(logging.WARNING)
    name = f"groupless-{uuid.uuid4().hex}"
    broker.allow("bob", "topic", name, "describe", "create", "read")
    bob = {
        "KAFKA_TOPIC": name,
        "KAFKA_SASL_USERNAME": "bob",
        "KAFKA_SASL_PASSWORD": broker.users["bob"],
    }
    service = start(environ("SASL_PLAINTEXT", "SCRAM-SHA-256", **bob))
    assert service.first_state() == 0
    refused = "The ACLs do not let the user bob use the group group-"
    eventually(lambda: any(line.startswith(refused) for line in own_lines(caplog)))
    assert produce(environ("PLAINTEXT", KAFKA_TOPIC=name)).returncode == 0
    service.comes_to(77)
    assert service.status["failures"] == 0
    service.consumer.stop(10)
    assert [line[: len(refused)] for line in own_lines(caplog)] == [refused]


def test_serves_what_is_on_the_disk_where_the_password_is_not_the_right_one_any_more(
    start, environ, tmp_path, broker
):
    given = environ("SASL_PLAINTEXT", "PLAIN", STATE_CACHE_DIR=str(tmp_path))
    before = start(given)
    assert before.first_state() == 0
    assert produce(given).returncode == 0
    before.comes_to(77)
    before.consumer.stop(10)
    (file,) = tmp_path.iterdir()
    assert broker.users["alice"].encode() not in file.read_bytes()
    service = start(given | {"KAFKA_SASL_PASSWORD": WRONG})
    assert service.first_state() == 77
    why = "the user name or the password is wrong for PLAIN"
    eventually(lambda: service.get("/readyz").get_json().get("cached", "").endswith(why))


def test_shows_no_secret_whatever_is_logged_or_raised(environ, tmp_path, broker):
    port = free_port()
    given = environ("SASL_PLAINTEXT", "SCRAM-SHA-512", KAFKA_SASL_PASSWORD=WRONG)
    given |= {"LOG_LEVEL": "DEBUG", "API_TOKEN": "s3cret-token-of-many-letters", "PORT": str(port)}
    with running(gunicorn(), port, given, tmp_path / "output") as program:
        eventually(lambda: "the password is wrong" in program.output)
        pages = [program.get(path).text for path in ("/readyz", "/healthz", "/state", "/status")]
        program.process.terminate()
        program.process.wait(5)
        for shown in [program.output, *pages]:
            assert "wr0ng" not in shown
            assert "s3cret-token-of-many-letters" not in shown
        assert len(program.told) < 20


def test_shows_no_secret_in_the_traceback_of_a_client_that_has_one_in_its_error(
    start, environ, broker, monkeypatch, capsys
):
    def fail(*args: object, **config: object) -> None:
        raise RuntimeError(f"cannot do with {config} and {config['sasl_plain_password']()}")

    monkeypatch.setattr("app.topic_log.consumers.open_client", fail)
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    service = start(environ("SASL_PLAINTEXT", "PLAIN"))
    assert "cannot do with" in reason(service)
    logged = eventually(lambda: capsys.readouterr().err)
    assert "Traceback" in logged
    for shown in (logged, service.get("/status").text, reason(service)):
        assert broker.users["alice"] not in shown
