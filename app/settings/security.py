"""The settings of TLS and SASL, and what their files hold now."""

from __future__ import annotations

import dataclasses
import functools
import ssl
from collections.abc import Mapping

from marshmallow import ValidationError, fields

from app.settings.environment import read, setting
from app.settings.files import Reloaded, Stamp, read_text, stamp_of
from app.settings.kinds import (
    ACCEPTED,
    DOTTED_PATH,
    OneOf,
    Pairs,
    boolean,
    http_url,
    readable_file,
    text,
)
from app.settings.redaction import Redactor
from app.settings.security_checks import (
    MSK_IAM,
    OAUTHBEARER,
    SASL_MECHANISMS,
    check_security,
)

LONGEST_SECRET = 1000


PROVIDER_ACCEPTED = (
    f"accepted are {MSK_IAM}, and the dotted path of a callable: package.module.name"
)


def _token_provider(given: str) -> None:
    if given != MSK_IAM and not DOTTED_PATH.fullmatch(given):
        raise ValidationError(PROVIDER_ACCEPTED)


@dataclasses.dataclass(frozen=True)
class SecuritySettings:
    """How the brokers are talked to, and as whom."""

    protocol: str = setting(
        "KAFKA_SECURITY_PROTOCOL",
        OneOf("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"),
        "How the service connects to the brokers.",
        default="PLAINTEXT",
    )
    sasl_mechanism: str | None = setting(
        "KAFKA_SASL_MECHANISM",
        OneOf(*SASL_MECHANISMS),
        "How this client signs in, where the protocol begins with `SASL_`: see "
        "[security](security.md#which-mechanisms).",
        default=None,
    )
    sasl_username: str | None = setting(
        "KAFKA_SASL_USERNAME",
        text(longest=LONGEST_SECRET),
        "The user, for `PLAIN` and `SCRAM`.",
        default=None,
    )
    sasl_password: str | None = setting(
        "KAFKA_SASL_PASSWORD",
        text(longest=LONGEST_SECRET),
        "The password of `KAFKA_SASL_USERNAME`.",
        default=None,
        is_secret=True,
    )
    sasl_password_file: str | None = setting(
        "KAFKA_SASL_PASSWORD_FILE",
        readable_file(),
        "The file that holds the user's password.",
        default=None,
    )
    sasl_kerberos_service_name: str = setting(
        "KAFKA_SASL_KERBEROS_SERVICE_NAME",
        text(longest=LONGEST_SECRET),
        "The service name in the brokers' Kerberos principal (its first part), for `GSSAPI`.",
        default="kafka",
    )
    oauth_token_url: str | None = setting(
        "KAFKA_OAUTH_TOKEN_URL",
        http_url(),
        "The endpoint that gives tokens for client credentials (OAuth 2), for `OAUTHBEARER`.",
        default=None,
    )
    oauth_client_id: str | None = setting(
        "KAFKA_OAUTH_CLIENT_ID",
        text(longest=LONGEST_SECRET),
        "The client's id at that endpoint.",
        default=None,
    )
    oauth_client_secret: str | None = setting(
        "KAFKA_OAUTH_CLIENT_SECRET",
        text(longest=LONGEST_SECRET),
        "The client's secret at that endpoint.",
        default=None,
        is_secret=True,
    )
    oauth_client_secret_file: str | None = setting(
        "KAFKA_OAUTH_CLIENT_SECRET_FILE",
        readable_file(),
        "The file that holds the client's secret.",
        default=None,
    )
    oauth_scope: str | None = setting(
        "KAFKA_OAUTH_SCOPE",
        text(longest=LONGEST_SECRET),
        "The scope that is asked for.",
        default=None,
    )
    oauth_extensions: tuple[tuple[str, str], ...] = setting(
        "KAFKA_OAUTH_EXTENSIONS",
        Pairs(),
        "What the cluster requires in addition to the token (SASL extensions, KIP-342), such "
        "as `logicalCluster=lkc-1,identityPoolId=pool-2`.",
        default=(),
    )
    oauth_token_provider: str | None = setting(
        "KAFKA_OAUTH_TOKEN_PROVIDER",
        fields.String(validate=_token_provider, metadata={ACCEPTED: PROVIDER_ACCEPTED}),
        "What provides tokens in place of an endpoint: Amazon MSK's signer, or your own callable.",
        default=None,
    )
    ssl_cafile: str | None = setting(
        "KAFKA_SSL_CAFILE",
        readable_file(),
        "PEM file of the authorities that may have signed the brokers' certificates. If it is "
        "not set, the system's authorities are trusted.",
        default=None,
    )
    ssl_certfile: str | None = setting(
        "KAFKA_SSL_CERTFILE",
        readable_file(),
        "PEM file of this client's own certificate.",
        default=None,
    )
    ssl_keyfile: str | None = setting(
        "KAFKA_SSL_KEYFILE",
        readable_file(),
        "PEM file of the key of `KAFKA_SSL_CERTFILE`. If it is not set, the key must be in "
        "the certificate's file.",
        default=None,
    )
    ssl_key_password: str | None = setting(
        "KAFKA_SSL_KEY_PASSWORD",
        text(longest=LONGEST_SECRET),
        "The password of an encrypted key.",
        default=None,
        is_secret=True,
    )
    ssl_key_password_file: str | None = setting(
        "KAFKA_SSL_KEY_PASSWORD_FILE",
        readable_file(),
        "The file that holds the key's password.",
        default=None,
    )
    ssl_check_hostname: bool = setting(
        "KAFKA_SSL_CHECK_HOSTNAME",
        boolean(),
        "Whether the host name in a broker's certificate must match the broker's address.",
        default=True,
    )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            secret = None if field.repr else getattr(self, field.name)
            if isinstance(secret, str):
                self.redactor.add(secret)

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> SecuritySettings:
        """Read the variables; one that is empty counts as not set.

        Raises:
            SettingsError: a value makes no sense, or would have no effect.
        """
        return read(cls, environ, check_security)

    @property
    def redactor(self) -> Redactor:
        """Knows each secret that was read, in whichever part of the process."""
        return _redactor_of(self)

    @property
    def uses_tls(self) -> bool:
        return self.protocol.endswith("SSL")

    @property
    def uses_sasl(self) -> bool:
        return self.protocol.startswith("SASL_")

    @property
    def uses_tokens(self) -> bool:
        return self.uses_sasl and self.sasl_mechanism == OAUTHBEARER

    @property
    def who(self) -> str:
        """Who the brokers take this program for, as far as it knows."""
        if not self.uses_sasl:
            return "this client"
        if self.sasl_username:
            return f"the user {self.sasl_username}"
        if self.oauth_client_id:
            return f"the client {self.oauth_client_id}"
        if self.oauth_token_provider:
            return f"the bearer of a token by {self.oauth_token_provider}"
        return "the Kerberos principal of this process"

    def password(self) -> str:
        """The user's password as it is now.

        Raises:
            OSError, ValueError: its file cannot be used, and never could.
        """
        return self._password.current()

    def client_secret(self) -> str:
        """The OAuth client's secret as it is now.

        Raises:
            OSError, ValueError: as `password`.
        """
        return self._client_secret.current()

    def key_password(self) -> str:
        """The password of an encrypted key as it is now; empty if there is none.

        Raises:
            OSError, ValueError: as `password`.
        """
        return self._key_password.current()

    def tls_context(self) -> ssl.SSLContext:
        """What TLS connections to the brokers are made with, by the files as they are now.

        Raises:
            OSError, ValueError: a file cannot be read, or is not PEM, and never was.
        """
        return self._tls_context.current()

    def files_stamp(self) -> Stamp:
        """Is another as soon as a file has changed that says who this client is."""
        files = (
            self.sasl_password_file,
            self.oauth_client_secret_file,
            self.ssl_certfile,
            self.ssl_keyfile,
        )
        return stamp_of([file for file in files if file])

    @functools.cached_property
    def _password(self) -> Reloaded[str]:
        return self._secret("KAFKA_SASL_PASSWORD", self.sasl_password, self.sasl_password_file)

    @functools.cached_property
    def _client_secret(self) -> Reloaded[str]:
        return self._secret(
            "KAFKA_OAUTH_CLIENT_SECRET", self.oauth_client_secret, self.oauth_client_secret_file
        )

    @functools.cached_property
    def _key_password(self) -> Reloaded[str]:
        return self._secret(
            "KAFKA_SSL_KEY_PASSWORD", self.ssl_key_password, self.ssl_key_password_file
        )

    def _secret(self, variable: str, value: str | None, file: str | None) -> Reloaded[str]:
        def make() -> str:
            if file is None:
                return value or ""
            secret = read_text(file)
            if not secret or not secret.isprintable() or len(secret) > LONGEST_SECRET:
                raise ValueError(
                    f"{file}: accepted are 1 to {LONGEST_SECRET} printable characters, in UTF-8"
                )
            self.redactor.add(secret)
            return secret

        return Reloaded(f"{variable}_FILE", [file] if file else [], make)

    @functools.cached_property
    def _tls_context(self) -> Reloaded[ssl.SSLContext]:
        files = (self.ssl_cafile, self.ssl_certfile, self.ssl_keyfile, self.ssl_key_password_file)
        return Reloaded(
            "What KAFKA_SSL_CAFILE, _CERTFILE and _KEYFILE name",
            [file for file in files if file],
            self._make_tls_context,
        )

    def _make_tls_context(self) -> ssl.SSLContext:
        context = self.trusting_context()
        context.check_hostname = self.ssl_check_hostname
        if self.ssl_certfile:
            # without a password OpenSSL would ask for one on the terminal
            context.load_cert_chain(self.ssl_certfile, self.ssl_keyfile, self.key_password())
        return context

    def trusting_context(self) -> ssl.SSLContext:
        """Make a context without a certificate of its own.

        Raises:
            OSError: a file cannot be read, or is not PEM.
        """
        return ssl.create_default_context(cafile=self.ssl_cafile)


@functools.cache
def _redactor_of(settings: SecuritySettings) -> Redactor:
    """One for all who have read the same settings, for each may read another secret of a file."""
    return Redactor()
