"""Which settings of TLS and SASL go together, and what of their files is used."""

from __future__ import annotations

import configparser
import re
import ssl
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from app.settings import Settings, SettingsError
from app.settings.security import SecuritySettings
from app.settings.security_checks import (
    GSSAPI_PACKAGE,
    MSK_IAM_PACKAGE,
    SASL_MECHANISMS,
    TOKEN_URL_PACKAGE,
)
from tests.support.docs import table_rows
from tests.support.processes import ROOT

SECRET = "s3cret of-many letters"
PLAIN = {
    "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
    "KAFKA_SASL_MECHANISM": "PLAIN",
    "KAFKA_SASL_USERNAME": "alice",
    "KAFKA_SASL_PASSWORD": SECRET,
}
OAUTH = {
    "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
    "KAFKA_SASL_MECHANISM": "OAUTHBEARER",
    "KAFKA_OAUTH_TOKEN_URL": "https://login.example.com/token",
    "KAFKA_OAUTH_CLIENT_ID": "service",
    "KAFKA_OAUTH_CLIENT_SECRET": SECRET,
}
PROVIDER = {
    "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
    "KAFKA_SASL_MECHANISM": "OAUTHBEARER",
    "KAFKA_OAUTH_TOKEN_PROVIDER": "acme.tokens.current",
}


def security(**variables: str) -> SecuritySettings:
    return SecuritySettings.from_environ(variables)


def refused(**variables: str) -> str:
    with pytest.raises(SettingsError) as raised:
        security(**variables)
    assert SECRET not in str(raised.value)
    return str(raised.value)


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    file = tmp_path / "secret"
    file.write_text(SECRET + "\n")
    return file


def test_reads_what_oauth_needs():
    given = security(
        **OAUTH, KAFKA_OAUTH_SCOPE="kafka", KAFKA_OAUTH_EXTENSIONS="logicalCluster=lkc-1, pool=2"
    )
    assert given.oauth_token_url == "https://login.example.com/token"
    assert given.client_secret() == SECRET
    assert given.oauth_extensions == (("logicalCluster", "lkc-1"), ("pool", "2"))
    assert given.who == "the client service"
    assert security(**PROVIDER).who == "the bearer of a token by acme.tokens.current"


@pytest.mark.parametrize(
    ("given", "more", "expected"),
    [
        (
            PLAIN,
            {"KAFKA_OAUTH_SCOPE": "x"},
            "only where KAFKA_SASL_MECHANISM is OAUTHBEARER; it is PLA",
        ),
        (OAUTH, {"KAFKA_SASL_USERNAME": "x"}, "only where KAFKA_SASL_MECHANISM is PLAIN or SCRAM"),
        (
            OAUTH,
            {"KAFKA_SASL_PASSWORD": SECRET},
            "only where KAFKA_SASL_MECHANISM is PLAIN or SCRAM",
        ),
        (
            PROVIDER,
            {"KAFKA_OAUTH_CLIENT_ID": "x"},
            "accepted only without KAFKA_OAUTH_TOKEN_PROVIDER",
        ),
        (PLAIN, {"KAFKA_SSL_KEY_PASSWORD": SECRET}, "accepted only with KAFKA_SSL_CERTFILE"),
        ({}, {"KAFKA_OAUTH_SCOPE": "x"}, "only where KAFKA_SECURITY_PROTOCOL has SASL_"),
    ],
)
def test_what_would_have_no_effect_is_refused(given, more, expected):
    (variable,) = more
    assert refused(**{**given, **more}).startswith(f"{variable} is ")
    assert expected in refused(**{**given, **more})


@pytest.mark.parametrize("missing", sorted(OAUTH.keys() - PROVIDER.keys()))
def test_what_an_endpoint_needs_is_named_where_it_is_missing(missing):
    given = {name: value for name, value in OAUTH.items() if name != missing}
    assert refused(**given).startswith(f"{missing} is not set: accepted is ")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("KAFKA_OAUTH_TOKEN_URL", "login.example.com/token"),
        ("KAFKA_OAUTH_TOKEN_URL", "ftp://login.example.com/token"),
        ("KAFKA_OAUTH_TOKEN_URL", "https://user@login.example.com/token"),
        ("KAFKA_OAUTH_TOKEN_URL", "https://[/token"),
        ("KAFKA_OAUTH_EXTENSIONS", "logicalCluster"),
        ("KAFKA_OAUTH_EXTENSIONS", "logicalCluster="),
        ("KAFKA_OAUTH_EXTENSIONS", "a b=c"),
    ],
)
def test_nonsense_is_refused(variable, value):
    assert refused(**{**OAUTH, variable: value}).startswith(f"{variable} is {value!r}: accepted ")


def test_a_provider_is_a_dotted_path():
    given = {**PROVIDER, "KAFKA_OAUTH_TOKEN_PROVIDER": "mine"}
    assert refused(**given).startswith(
        "KAFKA_OAUTH_TOKEN_PROVIDER is 'mine': accepted are msk-iam, "
    )


@pytest.mark.parametrize(
    ("given", "missing"),
    [(OAUTH, "authlib"), ({**PROVIDER, "KAFKA_OAUTH_TOKEN_PROVIDER": "msk-iam"}, "aws_msk_iam")],
)
def test_a_package_that_is_missing_is_named_with_what_to_install(monkeypatch, given, missing):
    monkeypatch.setattr("app.settings.security_checks.find_spec", lambda name: None)
    assert f"accepted where {missing}" in refused(**given)
    assert "uv pip install -c constraints.txt" in refused(**given)


@pytest.mark.parametrize(
    ("given", "variable", "read"),
    [
        (PLAIN, "KAFKA_SASL_PASSWORD", SecuritySettings.password),
        (OAUTH, "KAFKA_OAUTH_CLIENT_SECRET", SecuritySettings.client_secret),
    ],
)
def test_a_secret_may_be_in_a_file_and_change_there(secret_file, given, variable, read):
    in_file = {**given, f"{variable}_FILE": str(secret_file)}
    assert refused(**in_file).endswith(f"accepted only without {variable}")
    del in_file[variable]
    settings = security(**in_file)
    assert read(settings) == SECRET
    secret_file.write_text("another of many letters")
    assert read(settings) == "another of many letters"
    assert settings.redactor.redact(f"{SECRET}, another of many letters") == "(hidden), (hidden)"


@pytest.mark.parametrize("content", [b"", b"\n", b"two\nlines\n", b"x" * 1001, b"\xff"])
def test_a_file_that_holds_no_secret_is_refused_and_not_shown(secret_file, content):
    secret_file.write_bytes(content)
    given = {**PLAIN, "KAFKA_SASL_PASSWORD": "", "KAFKA_SASL_PASSWORD_FILE": str(secret_file)}
    line = refused(**given)
    assert line.startswith(f"KAFKA_SASL_PASSWORD_FILE is '{secret_file}': accepted is a password")
    assert "two" not in line


def test_a_file_that_is_not_there_is_refused(tmp_path):
    given = {**PLAIN, "KAFKA_SASL_PASSWORD": ""}
    line = refused(**given, KAFKA_SASL_PASSWORD_FILE=str(tmp_path / "none"))
    assert "accepted is a file that can be read (No such file or directory)" in line


@pytest.fixture
def certificate(tmp_path: Path) -> dict[str, str]:
    """One whose key is encrypted."""
    issued = trustme.CA().issue_cert("client")
    key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None)
    encrypted = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(SECRET.encode()),
    )
    issued.cert_chain_pems[0].write_to_path(tmp_path / "client.crt")
    (tmp_path / "client.key").write_bytes(encrypted)
    return {
        "KAFKA_SECURITY_PROTOCOL": "SSL",
        "KAFKA_SSL_CERTFILE": str(tmp_path / "client.crt"),
        "KAFKA_SSL_KEYFILE": str(tmp_path / "client.key"),
    }


def test_an_encrypted_key_has_its_password(certificate, secret_file):
    assert security(**certificate, KAFKA_SSL_KEY_PASSWORD=SECRET).tls_context()
    assert security(**certificate, KAFKA_SSL_KEY_PASSWORD_FILE=str(secret_file)).tls_context()
    line = refused(**certificate, KAFKA_SSL_KEY_PASSWORD="wrong")
    assert "where that is encrypted, with KAFKA_SSL_KEY_PASSWORD" in line
    assert "where that is encrypted, with KAFKA_SSL_KEY_PASSWORD" in refused(**certificate)


def test_a_certificate_that_is_replaced_is_used_and_a_half_written_one_is_not(
    certificate, tmp_path
):
    settings = security(**certificate, KAFKA_SSL_KEY_PASSWORD=SECRET)
    before = settings.tls_context()
    assert settings.tls_context() is before
    issued = trustme.CA().issue_cert("client")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "client.crt")
    assert settings.tls_context() is before  # its key is not there yet
    issued.private_key_pem.write_to_path(tmp_path / "client.key")
    assert isinstance(settings.tls_context(), ssl.SSLContext)
    assert settings.tls_context() is not before


def tokens(file: Path) -> Settings:
    return Settings.from_environ({"KAFKA_TOPIC": "t", "API_TOKEN_FILE": str(file)})


def test_several_tokens_are_accepted(tmp_path):
    (tmp_path / "tokens").write_text("\n  token-of-many-letters\nanother-of-many-letters  \n\n")
    settings = tokens(tmp_path / "tokens")
    assert settings.api_tokens() == ("token-of-many-letters", "another-of-many-letters")
    assert settings.redact("a token-of-many-letters") == "a (hidden)"


@pytest.mark.parametrize(
    "content", ["", "\n", "too-short", "token-of-many-letters\nno token is this"]
)
def test_a_file_with_a_line_that_is_no_token_is_refused(tmp_path, content):
    (tmp_path / "tokens").write_text(content)
    with pytest.raises(
        SettingsError, match=r"^API_TOKEN_FILE is .*accepted are 16 or more"
    ) as caught:
        tokens(tmp_path / "tokens")
    assert "token-of-many-letters" not in str(caught.value)


def test_a_token_is_given_in_one_form():
    given = {"KAFKA_TOPIC": "t", "API_TOKEN": "x" * 16, "API_TOKEN_FILE": __file__}
    with pytest.raises(SettingsError, match=r"accepted only without API_TOKEN$"):
        Settings.from_environ(given)


def test_the_docs_list_every_mechanism_with_what_it_needs():
    table = [row[:3] for row in table_rows("security", "Which mechanisms")]
    names = {name for mechanisms, *_ in table for name in re.findall("`(.*?)`", mechanisms)}
    assert names == set(SASL_MECHANISMS)
    extras = {extra for *_, needs in table for extra in re.findall(r"`\[(.*?)\]`", needs)}
    known = {extra for _, extra in (TOKEN_URL_PACKAGE, MSK_IAM_PACKAGE, GSSAPI_PACKAGE)}
    declared = configparser.ConfigParser()
    declared.read(ROOT / "setup.cfg")
    assert extras == known <= declared["options.extras_require"].keys()
