"""What the environment says, checked once at the start."""

from __future__ import annotations

import dataclasses
import functools
import ipaddress
import re
import ssl
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from marshmallow import (
    EXCLUDE,
    Schema,
    ValidationError,
    fields,
    post_load,
    validate,
    validates_schema,
)

from app.message_errors import InvalidMessage
from app.settings.environment import (
    SettingsError,
    milliseconds,
    misspelt,
    one_of,
    read,
    whole_number,
)
from app.settings.model import VARIABLES as MODEL_VARIABLES
from app.settings.model import ModelSettings
from app.strict_json import canonical_json, parse_json

WAITING_ACCEPTED = "accepted is a whole number, 0 or more, and less than gunicorn's threads"

SECRETS = frozenset({"KAFKA_SASL_PASSWORD", "API_TOKEN"})
SHORTEST_TOKEN = 16
# a shorter one may be a part of any word, and to take it out would tell what it is
SHORTEST_TO_HIDE = 8

SASL_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")

ONNX = "onnx"
# package.module.name, or package.module:name as entry points are written
LOADER = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*[.:][^\W\d]\w*(\.[^\W\d]\w*)*")

PREFIXES = ("KAFKA_", "STATE_", "MODEL_")
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

# a host's name has labels of 1 to 63 characters (RFC 1123, 2.1)
LABEL = "[A-Za-z0-9_-]{1,63}"
SERVER = re.compile(
    rf"({LABEL}(\.{LABEL})*\.?|\[(?P<ipv6>[0-9A-Fa-f:.]+)\])(:(?P<port>[0-9]{{1,5}}))?"
)


class _Servers(fields.String):
    """Host:port pairs; blanks around them are left out."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        servers = [server.strip(" \t") for server in value.split(",")]
        for server in servers:
            match = SERVER.fullmatch(server)
            port = int(match["port"] or 9092) if match else 0
            if not match or not 1 <= port <= 65535 or not _is_ip(match["ipv6"]):
                raise ValidationError("accepted are host:port pairs, separated by commas")
        return ",".join(servers)


def _is_ip(given: str | None) -> bool:
    try:
        return given is None or bool(ipaddress.IPv6Address(given))
    except ValueError:
        return False


def _printable(longest: int) -> Callable[[str], None]:
    def check(given: str) -> None:
        if not given.isprintable() or len(given) > longest:
            raise ValidationError(f"accepted are 1 to {longest} printable characters, in UTF-8")

    return check


class _Json(fields.Field[str]):
    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        try:
            return canonical_json(parse_json(value))
        except InvalidMessage as error:
            raise ValidationError("accepted is a JSON value") from error


def _readable_file(given: str) -> None:
    try:
        Path(given).read_bytes()
    except OSError as error:
        raise ValidationError(f"accepted is a file that can be read ({error.strerror})") from error


def _loader(given: str) -> None:
    if given == ONNX and not find_spec("onnxruntime"):
        raise ValidationError(
            "accepted where onnxruntime is installed: in the clone, pip install -c constraints.txt '.[onnx]'"
        )
    if given not in ("json", ONNX) and not LOADER.fullmatch(given):
        raise ValidationError(
            "accepted are json, onnx, and the dotted path of a callable: package.module.name"
        )


class _UpperCase(fields.String):
    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        return str(super()._deserialize(value, attr, data, **kwargs)).upper()


class _LowerCase(fields.String):
    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        return str(super()._deserialize(value, attr, data, **kwargs)).lower()


class _Environment(Schema):
    """Each field is named after the attribute of `Settings` it fills."""

    class Meta:
        unknown = EXCLUDE

    topic = fields.String(
        required=True,
        data_key="KAFKA_TOPIC",
        # Kafka's own rule for topic names, org.apache.kafka.common.internals.Topic
        validate=validate.Regexp(
            r"(?!\.{1,2}\Z)[a-zA-Z0-9._-]{1,249}\Z",
            error="accepted are 1 to 249 letters, digits, '.', '_' and '-'",
        ),
        error_messages={"required": "accepted is the name of a topic"},
    )
    bootstrap_servers = _Servers(load_default="localhost:9092", data_key="KAFKA_BOOTSTRAP_SERVERS")
    group_prefix = fields.String(
        load_default="group",
        data_key="KAFKA_CONSUMER_GROUP_PREFIX",
        validate=_printable(200),
    )
    topic_auto_create = fields.Boolean(
        load_default=True,
        data_key="KAFKA_TOPIC_AUTO_CREATE",
        error_messages={"invalid": "accepted are true and false"},
    )
    metadata_max_age_ms = milliseconds("KAFKA_METADATA_MAX_AGE_MS", default=30_000, least=100)
    request_timeout_ms = milliseconds(
        "KAFKA_REQUEST_TIMEOUT_MS", default=15_000, least=1_000, most=300_000
    )
    conflate_ms = milliseconds("KAFKA_CONFLATE_MS", default=50, most=10_000)
    initial = _Json(load_default="0", data_key="STATE_INITIAL")
    loader = fields.String(load_default="json", data_key="STATE_LOADER", validate=_loader)
    history = whole_number("STATE_HISTORY", "entries", 100, 0, 1000)
    max_stale_seconds = whole_number("STATE_MAX_STALE_SECONDS", "seconds", None, 1, 31_536_000)
    max_waiting = fields.Integer(
        data_key="STATE_MAX_WAITING",
        validate=validate.Range(min=0, error=WAITING_ACCEPTED),
        error_messages={"invalid": WAITING_ACCEPTED},
    )
    log_level = _UpperCase(
        load_default="INFO",
        data_key="LOG_LEVEL",
        validate=one_of("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"),
    )
    log_format = _LowerCase(
        load_default="text", data_key="LOG_FORMAT", validate=one_of("text", "json")
    )
    isolation_level = _UpperCase(
        load_default="READ_COMMITTED",
        data_key="KAFKA_ISOLATION_LEVEL",
        validate=one_of("READ_COMMITTED", "READ_UNCOMMITTED"),
    )
    security_protocol = _UpperCase(
        data_key="KAFKA_SECURITY_PROTOCOL",
        validate=one_of("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"),
    )
    sasl_mechanism = _UpperCase(
        data_key="KAFKA_SASL_MECHANISM",
        validate=one_of(*SASL_MECHANISMS),
    )
    sasl_username = fields.String(data_key="KAFKA_SASL_USERNAME", validate=_printable(1000))
    sasl_password = fields.String(data_key="KAFKA_SASL_PASSWORD", validate=_printable(1000))
    ssl_cafile = fields.String(data_key="KAFKA_SSL_CAFILE", validate=_readable_file)
    ssl_certfile = fields.String(data_key="KAFKA_SSL_CERTFILE", validate=_readable_file)
    ssl_keyfile = fields.String(data_key="KAFKA_SSL_KEYFILE", validate=_readable_file)
    ssl_check_hostname = fields.Boolean(
        data_key="KAFKA_SSL_CHECK_HOSTNAME",
        error_messages={"invalid": "accepted are true and false"},
    )
    api_token = fields.String(
        data_key="API_TOKEN",
        # RFC 6750, section 2.1
        validate=validate.Regexp(
            rf"(?=.{{{SHORTEST_TOKEN}}})[A-Za-z0-9._~+/-]+=*\Z",
            error=f"accepted are {SHORTEST_TOKEN} or more letters, digits and '-._~+/', then '='",
        ),
    )

    @validates_schema
    def _require_what_belongs_together(self, data: dict[str, Any], **kwargs: Any) -> None:
        protocol = data.get("security_protocol", "PLAINTEXT")
        for name, field in self.fields.items():
            needs = {"sasl_": "SASL_", "ssl_": "SSL"}.get(name[: name.find("_") + 1])
            if needs and name in data and needs not in protocol:
                raise ValidationError(
                    f"accepted only where KAFKA_SECURITY_PROTOCOL has {needs}; it is {protocol}",
                    field.data_key or name,
                )
            if needs == "SASL_" and name not in data and needs in protocol:
                accepted = (
                    f"accepted are {', '.join(SASL_MECHANISMS)}"
                    if name == "sasl_mechanism"
                    else "accepted is that of a user whom the brokers know"
                )
                raise ValidationError(
                    f"{accepted}; KAFKA_SECURITY_PROTOCOL is {protocol} and needs it",
                    field.data_key or name,
                )
        if "ssl_keyfile" in data and "ssl_certfile" not in data:
            raise ValidationError("accepted only with KAFKA_SSL_CERTFILE", "KAFKA_SSL_KEYFILE")

    @post_load
    def _settings(self, data: dict[str, Any], **kwargs: Any) -> Settings:
        settings = Settings(**data)
        if not settings.uses_tls:
            return settings  # what comes takes 20 ms each
        for variable, load, accepted in (
            ("KAFKA_SSL_CAFILE", settings._trusting_context, "PEM"),
            ("KAFKA_SSL_CERTFILE", settings.tls_context, "PEM, with a key without a password"),
        ):
            try:
                load()
            except OSError as error:
                raise ValidationError(f"accepted is {accepted} ({error})", variable) from error
        return settings


def _however_written(character: str) -> str:
    """A pattern: the repr of a text, and the repr of that, have backslashes before some
    characters, and addresses have percent signs and hexadecimal digits in their place."""
    literally = r"\\+" if character == "\\" else r"\\*" + re.escape(character)
    encoded = "".join(f"%{byte:02x}" for byte in character.encode())
    return f"(?:{literally}|(?i:{encoded}))"


@dataclasses.dataclass(frozen=True)
class Settings:
    """The service's settings.

    `initial` is the JSON text of the state served while the topic is known to hold no valid
    message.
    """

    topic: str
    bootstrap_servers: str = "localhost:9092"
    group_prefix: str = "group"
    topic_auto_create: bool = True
    metadata_max_age_ms: int = 30_000
    request_timeout_ms: int = 15_000
    conflate_ms: int = 50
    initial: str = "0"
    history: int = 100
    max_stale_seconds: int | None = None
    max_waiting: int | None = None
    log_level: str = "INFO"
    log_format: str = "text"
    isolation_level: str = "READ_COMMITTED"
    security_protocol: str = "PLAINTEXT"
    sasl_mechanism: str | None = None
    sasl_username: str | None = None
    sasl_password: str | None = dataclasses.field(default=None, repr=False)
    ssl_cafile: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    ssl_check_hostname: bool = True
    api_token: str | None = dataclasses.field(default=None, repr=False)
    loader: str = "json"
    model: ModelSettings | None = None

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
        context = self._trusting_context()
        context.check_hostname = self.ssl_check_hostname
        if self.ssl_certfile:
            # without the last argument OpenSSL asks for a password on the terminal
            context.load_cert_chain(self.ssl_certfile, self.ssl_keyfile, password="")
        return context

    def _trusting_context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.ssl_cafile)

    def hide(self, text: str) -> str:
        """Take the secrets out of a text that somebody else has written, and that is meant for
        eyes: a short password where a client shows its options, others wherever they are."""
        return self._secrets.sub("(hidden)", text) if self._secrets else text

    @functools.cached_property
    def _secrets(self) -> re.Pattern[str] | None:
        secrets = list(filter(None, (self.sasl_password, self.api_token)))
        patterns = [
            "".join(map(_however_written, secret))
            for secret in secrets
            if len(secret) >= SHORTEST_TO_HIDE
        ]
        if self.sasl_password:
            patterns.append(rf"(?<='sasl_plain_password': ){re.escape(repr(self.sasl_password))}")
        return re.compile("|".join(patterns)) if patterns else None

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Settings:
        """Read the variables the README lists; one that is empty counts as not set.

        Raises:
            SettingsError: a value is missing or makes no sense; names that are not known and are
                like one that is are told too.
        """
        try:
            settings: Settings = read(_Environment(), environ, SECRETS)
            model = ModelSettings.from_environ(environ, is_used=settings.loader == ONNX)
        except SettingsError as error:
            raise SettingsError("; ".join([str(error), *unknown_names(environ)])) from error
        return dataclasses.replace(settings, model=model)

    def __str__(self) -> str:
        shown = [field.name for field in dataclasses.fields(self) if field.repr]
        values = ((name, getattr(self, name)) for name in shown)
        return ", ".join(f"{name}={value}" for name, value in values if value is not None)


def unknown_names(environ: Mapping[str, str]) -> list[str]:
    """A line for each variable that has no effect and is like one that has.

    Others are let be: `KAFKA_HEAP_OPTS` is for Kafka's own tools, and Kubernetes sets
    `KAFKA_PORT` for a service of that name.
    """
    known = {field.data_key or "" for field in _Environment().fields.values()} | MODEL_VARIABLES
    given = [name for name, value in environ.items() if value and name.startswith(PREFIXES)]
    return misspelt(given, known, ALIASES)
