from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import trustme

from app.loaders import find_loader
from app.server import settings as server_settings
from app.settings import Settings, SettingsError, unknown_names
from app.settings.model import ModelSettings
from app.settings.security import SecuritySettings
from tests.support.processes import ended


def test_only_the_topic_is_required():
    assert Settings.from_environ({"KAFKA_TOPIC": "t"}) == Settings(topic="t")


def test_reads_each_variable_as_its_kind():
    assert Settings.from_environ(
        {
            "KAFKA_TOPIC": "models.v1",
            "KAFKA_BOOTSTRAP_SERVERS": "a:1,b,[::1]:9092",
            "KAFKA_CONSUMER_GROUP_PREFIX": "api",
            "KAFKA_COMMIT_POSITIONS": "true",
            "KAFKA_TOPIC_AUTO_CREATE": "false",
            "KAFKA_METADATA_MAX_AGE_MS": "1000",
            "KAFKA_REQUEST_TIMEOUT_MS": "20000",
            "KAFKA_CONFLATE_MS": "0",
            "STATE_INITIAL": '{"model": null}',
            "STATE_MAX_WAITING": "20",
            "LOG_LEVEL": "debug",
            "LOG_FORMAT": "json",
            "SOMETHING_ELSE": "ignored",
        }
    ) == Settings(
        topic="models.v1",
        bootstrap_servers="a:1,b,[::1]:9092",
        group_prefix="api",
        topic_auto_create=False,
        metadata_max_age_ms=1000,
        request_timeout_ms=20_000,
        conflate_ms=0,
        initial='{"model":null}',
        max_waiting=20,
        log_level="DEBUG",
        log_format="json",
    )


def test_positions_are_committed_unless_it_says_otherwise():
    assert Settings.from_environ({"KAFKA_TOPIC": "t"}).commit_positions
    off = {"KAFKA_TOPIC": "t", "KAFKA_COMMIT_POSITIONS": "false"}
    assert not Settings.from_environ(off).commit_positions


def test_what_is_said_of_groups_is_refused_where_there_are_none():
    given = {
        "KAFKA_TOPIC": "t",
        "KAFKA_COMMIT_POSITIONS": "false",
        "KAFKA_CONSUMER_GROUP_PREFIX": "api",
    }
    refused = "KAFKA_CONSUMER_GROUP_PREFIX is 'api': accepted only with KAFKA_COMMIT_POSITIONS=true"
    with pytest.raises(SettingsError, match=f"^{refused}$"):
        Settings.from_environ(given)


def test_reads_what_is_said_of_models_where_models_are_loaded():
    given = {
        "KAFKA_TOPIC": "t",
        "STATE_LOADER": "onnx",
        "MODEL_URI_PREFIXES": "https://models.example.com/, s3://bucket/models",
        "MODEL_MAX_BYTES": "1000",
        "MODEL_FETCH_SECONDS": "5",
        "MODEL_LOAD_SECONDS": "7",
        "MODEL_CACHE_DIR": "/var/cache/models",
        "MODEL_CACHE_BYTES": "0",
        "MODEL_THREADS": "2",
        "MODEL_MAX_REQUEST_BYTES": "2000",
    }
    assert Settings.from_environ(given).model == ModelSettings(
        uri_prefixes=("https://models.example.com/", "s3://bucket/models"),
        max_bytes=1000,
        fetch_seconds=5,
        load_seconds=7,
        cache_dir=Path("/var/cache/models"),
        cache_bytes=0,
        threads=2,
        max_request_bytes=2000,
    )


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MODEL_MAX_BYTES", "0"),
        ("MODEL_MAX_BYTES", "1 elephant"),
        ("MODEL_MAX_BYTES", "1.5"),
        ("MODEL_FETCH_SECONDS", "forever"),
        ("MODEL_CACHE_BYTES", "-1"),
        ("MODEL_THREADS", "0"),
    ],
)
def test_what_is_said_of_models_and_makes_no_sense_is_refused(variable, value):
    given = {"KAFKA_TOPIC": "t", "STATE_LOADER": "onnx", variable: value}
    with pytest.raises(SettingsError, match=rf"^{variable} is '{re.escape(value)}': accepted "):
        Settings.from_environ(given)


@pytest.mark.parametrize(
    "prefixes",
    ["models.example.com", "https://h/,", "nowhere://h/", "https://h/?q", "https://a:secret@h/"],
)
def test_prefixes_that_make_no_sense_are_refused_without_their_secrets(prefixes):
    given = {"KAFKA_TOPIC": "t", "STATE_LOADER": "onnx", "MODEL_URI_PREFIXES": prefixes}
    with pytest.raises(SettingsError, match=r"^MODEL_URI_PREFIXES has .*: accepted ") as raised:
        find_loader(Settings.from_environ(given))
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("prefix", "package", "extra"),
    [("gs://bucket/", "gcsfs", "gcs"), ("abfss://models@acme.example.com/", "adlfs", "abfs")],
)
def test_prefixes_whose_package_is_missing_end_the_start_with_what_to_install(
    prefix, package, extra
):
    given = {"KAFKA_TOPIC": "t", "STATE_LOADER": "onnx", "MODEL_URI_PREFIXES": prefix}
    install = re.escape(f"uv pip install -c constraints.txt '.[{extra}]'")
    with pytest.raises(SettingsError, match=f"the package {package} is missing .*{install}"):
        find_loader(Settings.from_environ(given))


def test_what_is_said_of_models_is_refused_where_none_are_loaded():
    with pytest.raises(SettingsError, match=r"MODEL_THREADS is '2': .* STATE_LOADER=onnx"):
        Settings.from_environ({"KAFKA_TOPIC": "t", "MODEL_THREADS": "2"})


@pytest.mark.parametrize("loader", ["yaml", "load", "a b.load", "a:b:c", ".load", "a:"])
def test_a_loader_that_cannot_be_one_is_refused(loader):
    with pytest.raises(SettingsError, match=f"STATE_LOADER is '{loader}': accepted are json, onnx"):
        Settings.from_environ({"KAFKA_TOPIC": "t", "STATE_LOADER": loader})


def test_an_empty_variable_counts_as_not_set():
    given = {"KAFKA_TOPIC": "t", "STATE_INITIAL": "", "KAFKA_METADATA_MAX_AGE_MS": ""}
    assert Settings.from_environ(given) == Settings(topic="t")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("KAFKA_TOPIC", "a topic"),
        ("KAFKA_TOPIC", ".."),
        ("KAFKA_TOPIC", "t" * 250),
        ("KAFKA_TOPIC", "t\n"),
        ("KAFKA_BOOTSTRAP_SERVERS", ","),
        ("KAFKA_BOOTSTRAP_SERVERS", "a:b"),
        ("KAFKA_BOOTSTRAP_SERVERS", "a:70000"),
        ("KAFKA_BOOTSTRAP_SERVERS", "kafka://a:9092"),
        ("KAFKA_BOOTSTRAP_SERVERS", "a:9092?b=c"),
        ("KAFKA_BOOTSTRAP_SERVERS", "a 9092"),
        ("KAFKA_BOOTSTRAP_SERVERS", "a;9092"),
        ("KAFKA_BOOTSTRAP_SERVERS", "a:9092\n"),
        ("KAFKA_BOOTSTRAP_SERVERS", "a:0"),
        ("KAFKA_CONSUMER_GROUP_PREFIX", "g" * 201),
        ("KAFKA_CONSUMER_GROUP_PREFIX", "a\nb"),
        ("KAFKA_TOPIC_AUTO_CREATE", "perhaps"),
        ("KAFKA_METADATA_MAX_AGE_MS", "30 s"),
        ("KAFKA_REQUEST_TIMEOUT_MS", "999"),
        ("KAFKA_REQUEST_TIMEOUT_MS", "5s"),
        ("KAFKA_CONFLATE_MS", "-1"),
        ("KAFKA_CONFLATE_MS", "10001"),
        ("KAFKA_METADATA_MAX_AGE_MS", "0"),
        ("STATE_INITIAL", "nope"),
        ("STATE_INITIAL", "NaN"),
        ("STATE_MAX_WAITING", "-1"),
        ("STATE_MAX_WAITING", "many"),
        ("LOG_LEVEL", "LOUD"),
        ("LOG_FORMAT", "xml"),
        ("KAFKA_ISOLATION_LEVEL", "serializable"),
        ("KAFKA_SECURITY_PROTOCOL", "TLS"),
        ("KAFKA_SSL_CHECK_HOSTNAME", "sometimes"),
        ("KAFKA_SSL_CAFILE", "/nowhere/ca.pem"),
        ("KAFKA_SSL_CERTFILE", "/nowhere/client.pem"),
        ("KAFKA_SASL_MECHANISM", "GSSAPI"),
        ("KAFKA_SASL_USERNAME", "alice"),
        ("KAFKA_SASL_USERNAME", "alice\n[ERROR] all is lost"),
        ("KAFKA_SASL_USERNAME", "al\udcffice"),
        ("KAFKA_BOOTSTRAP_SERVERS", "a..b:9092,c:9092"),
        ("KAFKA_BOOTSTRAP_SERVERS", "a" * 64 + ":9092"),
        ("KAFKA_BOOTSTRAP_SERVERS", "[:::::]:9092"),
        ("KAFKA_METADATA_MAX_AGE_MS", "99999999999999999999"),
    ],
)
def test_nonsense_is_one_line_that_names_the_variable_and_what_is_accepted(variable, value):
    with pytest.raises(SettingsError) as caught:
        Settings.from_environ({"KAFKA_TOPIC": "t", variable: value})
    line = str(caught.value)
    assert line.startswith(f"{variable} is {value!r}: accepted")
    assert "\n" not in line


SASL = {
    "KAFKA_SECURITY_PROTOCOL": "sasl_ssl",
    "KAFKA_SASL_MECHANISM": "scram-sha-512",
    "KAFKA_SASL_USERNAME": "alice",
    "KAFKA_SASL_PASSWORD": "s3cret",
}


def settings(**variables: str) -> Settings:
    return Settings.from_environ({"KAFKA_TOPIC": "t", **variables})


def test_reads_how_the_brokers_are_talked_to():
    given = settings(**SASL, KAFKA_SSL_CHECK_HOSTNAME="false", API_TOKEN="t0ken-of-many-letters")
    security = given.security
    assert security.protocol == "SASL_SSL"
    assert security.sasl_mechanism == "SCRAM-SHA-512"
    assert (security.sasl_username, security.password()) == ("alice", "s3cret")
    assert not security.ssl_check_hostname
    assert given.api_tokens() == ("t0ken-of-many-letters",)
    assert security.uses_tls
    assert security.uses_sasl


@pytest.mark.parametrize("missing", sorted(SASL.keys() - {"KAFKA_SECURITY_PROTOCOL"}))
def test_what_sasl_needs_is_named_where_it_is_missing(missing):
    given = {name: value for name, value in SASL.items() if name != missing}
    with pytest.raises(SettingsError, match=f"{missing} is not set: accepted .* and needs it"):
        settings(**given)


@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SSL"])
def test_sasl_settings_that_would_not_be_used_are_refused(protocol):
    with pytest.raises(SettingsError, match=f"only where KAFKA_SECURITY_PROTOCOL .*{protocol}"):
        settings(**{**SASL, "KAFKA_SECURITY_PROTOCOL": protocol})


def test_tls_settings_that_would_not_be_used_are_refused(tmp_path):
    (tmp_path / "ca.pem").write_text("")
    with pytest.raises(SettingsError, match=r"KAFKA_SSL_CAFILE is .*: accepted only where"):
        settings(KAFKA_SSL_CAFILE=str(tmp_path / "ca.pem"))


def test_no_certificates_are_loaded_where_there_is_no_tls(monkeypatch):
    loaded = []
    monkeypatch.setattr(SecuritySettings, "tls_context", lambda *_: loaded.append("context"))
    settings()
    assert loaded == []
    settings(KAFKA_SECURITY_PROTOCOL="SSL")
    assert loaded == ["context"]


@pytest.mark.parametrize("variable", ["KAFKA_SSL_CAFILE", "KAFKA_SSL_CERTFILE"])
def test_a_file_that_holds_no_certificate_is_refused(tmp_path, variable):
    file = tmp_path / "file.pem"
    file.write_text("no certificate")
    with pytest.raises(SettingsError, match=f"{variable} is .*: accepted is PEM"):
        settings(KAFKA_SECURITY_PROTOCOL="SSL", **{variable: str(file)})


def test_a_key_that_does_not_belong_to_the_certificate_is_refused(tmp_path):
    ca = trustme.CA()
    for name in ("one", "other"):
        certificate = ca.issue_cert(name)
        certificate.private_key_pem.write_to_path(tmp_path / f"{name}.key")
        certificate.cert_chain_pems[0].write_to_path(tmp_path / f"{name}.crt")
    given = {
        "KAFKA_SECURITY_PROTOCOL": "SSL",
        "KAFKA_SSL_CERTFILE": str(tmp_path / "one.crt"),
        "KAFKA_SSL_KEYFILE": str(tmp_path / "one.key"),
    }
    assert settings(**given).security.tls_context()
    with pytest.raises(SettingsError, match=r"KAFKA_SSL_CERTFILE is .*: accepted is PEM"):
        settings(**{**given, "KAFKA_SSL_KEYFILE": str(tmp_path / "other.key")})


@pytest.mark.parametrize(
    ("variable", "value"), [("API_TOKEN", "s3cret s3cret"), ("KAFKA_SASL_PASSWORD", "s3cret")]
)
def test_a_secret_that_is_refused_is_not_shown(variable, value):
    with pytest.raises(SettingsError, match=rf"{variable} is \(hidden\): accepted") as caught:
        settings(**{variable: value})
    assert "s3cret" not in str(caught.value)


def test_secrets_are_in_no_text_of_the_settings():
    secret = {"KAFKA_SASL_PASSWORD": "s3cret password", "API_TOKEN": "t0ken-of-many-letters"}
    given = settings(**{**SASL, **secret})
    for text in (str(given), repr(given), given.redact("s3cret password, t0ken-of-many-letters")):
        assert "s3cret" not in text
        assert "t0ken" not in text


def test_a_short_password_is_not_told_by_what_is_like_it():
    given = settings(**{**SASL, "KAFKA_SASL_PASSWORD": "te'st"})
    assert given.redact("te'st-topic") == "te'st-topic"


def test_a_token_that_is_soon_guessed_is_refused():
    assert settings(API_TOKEN="x" * 16).api_tokens()
    with pytest.raises(SettingsError, match=r"API_TOKEN is \(hidden\): accepted are 16"):
        settings(API_TOKEN="x" * 15)


def test_the_mechanisms_are_listed_where_none_is_given():
    given = {name: value for name, value in SASL.items() if name != "KAFKA_SASL_MECHANISM"}
    with pytest.raises(
        SettingsError,
        match="accepted are PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER, GSSAPI;",
    ):
        settings(**given)


@pytest.mark.parametrize(
    ("variable", "value", "attribute", "read"),
    [
        ("KAFKA_BOOTSTRAP_SERVERS", "a:9092, b:9092", "bootstrap_servers", "a:9092,b:9092"),
        ("LOG_FORMAT", "JSON", "log_format", "json"),
        ("STATE_LOADER", "threshold:load", "loader", "threshold:load"),
    ],
)
def test_takes_what_is_plainly_meant(variable, value, attribute, read):
    assert getattr(settings(**{variable: value}), attribute) == read


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("1GB", 10**9),
        ("1 gb", 10**9),
        ("1G", 10**9),
        ("1GiB", 2**30),
        ("1Gi", 2**30),
        ("1.5 MiB", 3 * 2**19),
        ("500kB", 500_000),
        ("1000", 1000),
    ],
)
def test_sizes_have_units(given, read):
    model = settings(STATE_LOADER="onnx", MODEL_MAX_BYTES=given).model
    assert model is not None
    assert model.max_bytes == read


def test_a_folder_for_a_prefix_is_told_how_it_is_written():
    with pytest.raises(SettingsError, match="'/srv/models': did you mean file:///srv/models/"):
        find_loader(settings(STATE_LOADER="onnx", MODEL_URI_PREFIXES="/srv/models"))


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("KAFKA_BOOTSTRAP_SERVER", "KAFKA_BOOTSTRAP_SERVERS"),
        ("KAFKA_BROKERS", "KAFKA_BOOTSTRAP_SERVERS"),
        ("KAFKA_TOPICS", "KAFKA_TOPIC"),
        ("STATE_INIT", "STATE_INITIAL"),
        ("MODEL_URI_PREFIX", "MODEL_URI_PREFIXES"),
        ("LOG_LEVELS", "LOG_LEVEL"),
        ("API_TOKENS", "API_TOKEN"),
    ],
)
def test_a_name_that_is_like_a_known_one_is_asked_about(name, meant):
    (line,) = unknown_names({name: "x", "KAFKA_TOPIC": "t"})
    assert line == f"{name} is not known and has no effect: did you mean {meant}?"


@pytest.mark.parametrize(
    "name", ["KAFKA_HEAP_OPTS", "KAFKA_PORT_9092_TCP_PORT", "KAFKA_HOME", "MODEL_NAME", "TOPIC"]
)
def test_a_name_that_is_like_none_is_let_be(name):
    assert unknown_names({name: "x"}) == []


def test_a_start_that_fails_asks_about_the_names_too():
    with pytest.raises(SettingsError, match=r"KAFKA_TOPIC is not set.*did you mean KAFKA_TOPIC\?"):
        Settings.from_environ({"KAFKA_TOPICS": "t"})


def test_reads_what_was_committed_unless_told_otherwise():
    assert settings().isolation_level == "READ_COMMITTED"
    assert settings(KAFKA_ISOLATION_LEVEL="read_uncommitted").isolation_level == "READ_UNCOMMITTED"


def test_a_missing_topic_is_named():
    with pytest.raises(SettingsError, match="KAFKA_TOPIC is not set: accepted is"):
        Settings.from_environ({})


@pytest.mark.parametrize(
    ("variable", "value"),
    [("PORT", "http"), ("PORT", "65536"), ("WEB_CONCURRENCY", "many"), ("WEB_CONCURRENCY", "0")],
)
def test_what_gunicorn_reads_as_a_number_has_to_be_one(variable, value):
    with pytest.raises(SettingsError, match=f"^{variable} is '{value}': accepted is a whole"):
        server_settings.check({variable: value})


def test_options_of_gunicorn_that_no_shell_would_read_are_told():
    with pytest.raises(SettingsError, match=r"^GUNICORN_CMD_ARGS is .--bind 'x.: .*quot"):
        server_settings.threads({"GUNICORN_CMD_ARGS": "--bind 'x"})


def test_gunicorn_ends_in_one_line_on_a_port_that_is_none():
    said = ended([sys.executable, "-m", "gunicorn", "wsgi:app"], KAFKA_TOPIC="t", PORT="99999999")
    assert said.stderr == "Error: PORT is '99999999': accepted is a whole number, 0 to 65535\n"


@pytest.mark.parametrize("options", [[], ["--preload"]])
def test_gunicorn_ends_at_once_on_a_setting_that_makes_no_sense(options):
    environ = {**os.environ, "KAFKA_TOPIC": "t", "STATE_INITIAL": "nope"}
    command = [sys.executable, "-m", "gunicorn", "-b", "127.0.0.1:0", *options, "wsgi:app"]
    ended = subprocess.run(
        command, env=environ, capture_output=True, text=True, timeout=30, check=False
    )
    assert ended.returncode == 1
    assert ended.stderr == "Error: STATE_INITIAL is 'nope': accepted is a JSON value\n"
