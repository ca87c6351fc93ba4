"""The service's settings: each is declared once, with what it accepts and what it means."""

from __future__ import annotations

import dataclasses
import functools
import re
import ssl
from collections.abc import Mapping
from importlib.util import find_spec

from marshmallow import ValidationError, fields, validate

from app.settings.environment import SettingsError, misspelt, read, setting, variables
from app.settings.kinds import (
    DOTTED_PATH,
    Json,
    OneOf,
    Servers,
    boolean,
    matching,
    milliseconds,
    readable_file,
    text,
    whole_number,
)
from app.settings.model import ModelSettings
from app.settings.redaction import REDACTED, pattern_of
from app.settings.security import SASL_MECHANISMS, check_security

WAITING_ACCEPTED = "accepted is a whole number, 0 or more, and less than gunicorn's threads"
SHORTEST_TOKEN = 16
LONGEST_STALE_SECONDS = 365 * 24 * 60 * 60
ONNX = "onnx"

PREFIXES = ("API_", "KAFKA_", "LOG_", "MODEL_", "STATE_")
# what other programs call the brokers
ALIASES = dict.fromkeys(
    [
        "KAFKA_BOOTSTRAP",
        "KAFKA_BROKER",
        "KAFKA_BROKERS",
        "KAFKA_BROKER_LIST",
        "KAFKA_HOST",
        "KAFKA_HOSTS",
        "KAFKA_SERVER",
        "KAFKA_SERVERS",
        "KAFKA_URL",
    ],
    "KAFKA_BOOTSTRAP_SERVERS",
)


def _loader(given: str) -> None:
    if given == ONNX and not find_spec("onnxruntime"):
        raise ValidationError(
            "accepted where onnxruntime is installed: in the clone, pip install -c constraints.txt '.[onnx]'"
        )
    if given not in ("json", ONNX) and not DOTTED_PATH.fullmatch(given):
        raise ValidationError(
            "accepted are json, onnx, and the dotted path of a callable: package.module.name"
        )


@dataclasses.dataclass(frozen=True)
class Settings:
    topic: str = setting(
        "KAFKA_TOPIC",
        # Kafka's own rule for topic names, org.apache.kafka.common.internals.Topic
        matching(
            r"(?!\.{1,2}\Z)[a-zA-Z0-9._-]{1,249}\Z",
            "accepted are 1 to 249 letters, digits, '.', '_' and '-'",
            missing="accepted is the name of a topic",
        ),
        "The topic that is followed.",
    )
    bootstrap_servers: str = setting(
        "KAFKA_BOOTSTRAP_SERVERS",
        Servers(),
        "The brokers to begin with: host:port pairs, separated by commas.",
        default="localhost:9092",
    )
    group_prefix: str = setting(
        "KAFKA_CONSUMER_GROUP_PREFIX",
        text(longest=200),
        "Each instance is the group `<prefix>-<random>`.",
        default="group",
    )
    topic_auto_create: bool = setting(
        "KAFKA_TOPIC_AUTO_CREATE",
        boolean(),
        "Whether a topic that is missing is created, and not waited for.",
        default=True,
    )
    metadata_max_age_ms: int = setting(
        "KAFKA_METADATA_MAX_AGE_MS",
        milliseconds(least=100),
        "How soon new partitions are noticed.",
        default=30_000,
    )
    request_timeout_ms: int = setting(
        "KAFKA_REQUEST_TIMEOUT_MS",
        milliseconds(least=1_000, most=300_000),
        "How long a broker may take to answer a request.",
        default=15_000,
    )
    conflate_ms: int = setting(
        "KAFKA_CONFLATE_MS",
        milliseconds(most=10_000),
        "How long the reader pauses after messages while more than fifty a second come; of those "
        "that come meanwhile only the last valid one matters.",
        default=50,
    )
    isolation_level: str = setting(
        "KAFKA_ISOLATION_LEVEL",
        OneOf("READ_COMMITTED", "READ_UNCOMMITTED"),
        "Whether messages of open and aborted transactions are served too.",
        default="READ_COMMITTED",
    )
    security_protocol: str = setting(
        "KAFKA_SECURITY_PROTOCOL",
        OneOf("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"),
        "How the brokers are talked to.",
        default="PLAINTEXT",
    )
    sasl_mechanism: str | None = setting(
        "KAFKA_SASL_MECHANISM",
        OneOf(*SASL_MECHANISMS),
        "How this client says who it is, with a `SASL_` protocol.",
        default=None,
    )
    sasl_username: str | None = setting(
        "KAFKA_SASL_USERNAME",
        text(longest=1000),
        "The user's name.",
        default=None,
    )
    sasl_password: str | None = setting(
        "KAFKA_SASL_PASSWORD",
        text(longest=1000),
        "The user's password.",
        default=None,
        is_secret=True,
    )
    ssl_cafile: str | None = setting(
        "KAFKA_SSL_CAFILE",
        readable_file(),
        "PEM file of the authorities that the brokers' certificates may come from; by default the "
        "system's.",
        default=None,
    )
    ssl_certfile: str | None = setting(
        "KAFKA_SSL_CERTFILE",
        readable_file(),
        "PEM file of a certificate of one's own.",
        default=None,
    )
    ssl_keyfile: str | None = setting(
        "KAFKA_SSL_KEYFILE",
        readable_file(),
        "PEM file of its key, which has no password.",
        default=None,
    )
    ssl_check_hostname: bool = setting(
        "KAFKA_SSL_CHECK_HOSTNAME",
        boolean(),
        "Whether a broker's certificate must be for its host.",
        default=True,
    )
    initial: str = setting(
        "STATE_INITIAL",
        Json(),
        "The JSON that is served while the topic is known to hold no valid message.",
        default="0",
    )
    loader: str = setting(
        "STATE_LOADER",
        fields.String(validate=_loader),
        "`json`, `onnx`, or the dotted path of a callable that makes of a message what is served.",
        default="json",
    )
    history: int = setting(
        "STATE_HISTORY",
        whole_number("entries", 0, 1000),
        "How many states, and refused messages, `/state/history` has.",
        default=100,
    )
    max_stale_seconds: int | None = setting(
        "STATE_MAX_STALE_SECONDS",
        whole_number("seconds", 1, LONGEST_STALE_SECONDS),
        "How stale the state may be before `/readyz` answers 503; by default staleness does not matter to it.",
        default=None,
    )
    max_waiting: int | None = setting(
        "STATE_MAX_WAITING",
        fields.Integer(
            validate=validate.Range(min=0, error=WAITING_ACCEPTED),
            error_messages={"invalid": WAITING_ACCEPTED},
        ),
        "How many streams and waiting reads a worker holds at once; by default half of its "
        "threads.",
        default=None,
    )
    log_level: str = setting(
        "LOG_LEVEL",
        OneOf("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"),
        "From which level on lines are logged.",
        default="INFO",
    )
    log_format: str = setting(
        "LOG_FORMAT",
        OneOf("text", "json"),
        "How a line is written.",
        default="text",
    )
    api_token: str | None = setting(
        "API_TOKEN",
        # RFC 6750, section 2.1
        matching(
            rf"(?=.{{{SHORTEST_TOKEN}}})[A-Za-z0-9._~+/-]+=*\Z",
            f"accepted are {SHORTEST_TOKEN} or more letters, digits and '-._~+/', then '='",
        ),
        "Every request but those of the probes and of the page itself has to send it.",
        default=None,
        is_secret=True,
    )
    model: ModelSettings | None = None

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Settings:
        """Read the variables; one that is empty counts as not set.

        Raises:
            SettingsError: a value is missing or makes no sense; names that are not known and are
                like one that is are told too.
        """
        try:
            settings = read(cls, environ, check_security)
            model = ModelSettings.from_environ(environ, is_used=settings.loader == ONNX)
        except SettingsError as error:
            raise SettingsError("; ".join([str(error), *unknown_names(environ)])) from error
        return dataclasses.replace(settings, model=model)

    @property
    def uses_tls(self) -> bool:
        return self.security_protocol.endswith("SSL")

    @property
    def uses_sasl(self) -> bool:
        return self.security_protocol.startswith("SASL_")

    @property
    def who(self) -> str:
        """Who the brokers take this program for, as far as it knows."""
        return f"the user {self.sasl_username}" if self.uses_sasl else "this client"

    def tls_context(self) -> ssl.SSLContext:
        """What TLS connections to the brokers are made with, by the files as they are now.

        Raises:
            OSError: a file cannot be read, or is not PEM.
        """
        context = self.trusting_context()
        context.check_hostname = self.ssl_check_hostname
        if self.ssl_certfile:
            # without the last argument OpenSSL asks for a password on the terminal
            context.load_cert_chain(self.ssl_certfile, self.ssl_keyfile, password="")
        return context

    def trusting_context(self) -> ssl.SSLContext:
        """Make a context without a certificate of its own.

        Raises:
            OSError: as `tls_context`.
        """
        return ssl.create_default_context(cafile=self.ssl_cafile)

    def redact(self, text: str) -> str:
        """Take the secrets out of a text."""
        return self._secrets.sub(REDACTED, text) if self._secrets else text

    @functools.cached_property
    def _secrets(self) -> re.Pattern[str] | None:
        secrets = (
            getattr(self, field.name) for field in dataclasses.fields(self) if not field.repr
        )
        return pattern_of(filter(None, secrets), self.sasl_password)

    def __str__(self) -> str:
        shown = [field.name for field in dataclasses.fields(self) if field.repr]
        values = ((name, getattr(self, name)) for name in shown)
        return ", ".join(f"{name}={value}" for name, value in values if value is not None)


def unknown_names(environ: Mapping[str, str]) -> list[str]:
    """A line for each variable that has no effect and is like one that has.

    Others are let be: `KAFKA_HEAP_OPTS` is for Kafka's own tools, and Kubernetes sets
    `KAFKA_PORT` for a service of that name.
    """
    known = variables(Settings).keys() | variables(ModelSettings).keys()
    given = [name for name, value in environ.items() if value and name.startswith(PREFIXES)]
    return misspelt(given, known, ALIASES)
