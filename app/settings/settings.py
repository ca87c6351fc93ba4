"""The service's settings: each is declared once, with what it accepts and what it means."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Collection, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

from marshmallow import ValidationError, fields, validate

from app.settings.environment import SettingsError, fault, misspelt, read, setting, variables
from app.settings.files import Reloaded, read_text
from app.settings.kinds import (
    ACCEPTED,
    DOTTED_PATH,
    FilePath,
    Json,
    JsonObject,
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
from app.settings.security import SecuritySettings
from app.settings.security_checks import require_one_form

WAITING_ACCEPTED = "accepted is a whole number, 0 or more, and less than gunicorn's threads"
LOADER_ACCEPTED = "accepted are json, onnx, and the dotted path of a callable: package.module.name"
SHORTEST_TOKEN = 16
# RFC 6750, section 2.1
TOKEN = rf"(?=.{{{SHORTEST_TOKEN}}})[A-Za-z0-9._~+/-]+=*\Z"
TOKEN_ACCEPTED = f"accepted are {SHORTEST_TOKEN} or more letters, digits and '-._~+/', then '='"
# how soon a token that is new in the file is accepted, and one that is gone refused
TOKENS_SECONDS = 1.0
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
            "accepted where onnxruntime is installed: in the clone, uv pip install -c constraints.txt '.[onnx]'"
        )
    if given not in ("json", ONNX) and not DOTTED_PATH.fullmatch(given):
        raise ValidationError(LOADER_ACCEPTED)


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
        "The brokers to contact first. The cluster names the others.",
        default="localhost:9092",
    )
    group_prefix: str = setting(
        "KAFKA_CONSUMER_GROUP_PREFIX",
        text(longest=200),
        "Each worker has a consumer group `<prefix>-<random>`, which Kafka's tools show with "
        "its lag. At a clean stop the service deletes the group. After any other stop Kafka "
        "deletes it, by default after a week (`offsets.retention.minutes`).",
        default="group",
    )
    commit_positions: bool = setting(
        "KAFKA_COMMIT_POSITIONS",
        boolean(),
        "Whether each instance commits its positions, for Kafka's tools to see. Nothing else needs "
        "them. With `false` there is no group, which saves [half of the "
        "connections, or more](growth.md#what-to-turn-off).",
        default=True,
    )
    topic_auto_create: bool = setting(
        "KAFKA_TOPIC_AUTO_CREATE",
        boolean(),
        "Whether the service creates a missing topic, with one partition and the brokers' "
        "default replication. If not, the service waits for the topic.",
        default=True,
    )
    metadata_max_age_ms: int = setting(
        "KAFKA_METADATA_MAX_AGE_MS",
        milliseconds(least=100),
        "After how long at most new partitions are noticed.",
        default=30_000,
    )
    client_id: str = setting(
        "KAFKA_CLIENT_ID",
        text(longest=200),
        "What brokers call this client in their logs, metrics and quotas.",
        default="kafka-state",
    )
    client_rack: str | None = setting(
        "KAFKA_CLIENT_RACK",
        text(longest=200),
        "The rack of this instance, as named in the brokers' `broker.rack`. If the brokers "
        "have a rack-aware `replica.selector.class`, new messages are fetched from a replica "
        "in the same rack (KIP-392).",
        default=None,
    )
    request_timeout_ms: int = setting(
        "KAFKA_REQUEST_TIMEOUT_MS",
        milliseconds(least=1_000, most=300_000),
        "How long a broker may take to answer a request, and to acknowledge a message that "
        "`kafka-state produce` sends.",
        default=15_000,
    )
    conflate_ms: int = setting(
        "KAFKA_CONFLATE_MS",
        milliseconds(most=10_000),
        "How long the reader pauses after each read while more than fifty messages a second "
        "come. Of the messages that come during a pause only the last valid one counts. With "
        "0 the reader never pauses.",
        default=50,
    )
    isolation_level: str = setting(
        "KAFKA_ISOLATION_LEVEL",
        OneOf("READ_COMMITTED", "READ_UNCOMMITTED"),
        "`READ_UNCOMMITTED` also serves messages of open and aborted transactions.",
        default="READ_COMMITTED",
    )
    client_options: str = setting(
        "KAFKA_CLIENT_OPTIONS",
        JsonObject(),
        "Options of the Kafka client that have no setting here, such as "
        '`{"receive_buffer_bytes": 262144}`. If an option is not accepted, the error lists '
        "those that are.",
        default="{}",
        is_secret=True,
    )
    initial: str = setting(
        "STATE_INITIAL",
        Json(),
        "What is served if the topic has been read and holds no valid message.",
        default="0",
    )
    loader: str = setting(
        "STATE_LOADER",
        fields.String(validate=_loader, metadata={ACCEPTED: LOADER_ACCEPTED}),
        "What turns a message into what is served: see [loaders](loaders.md).",
        default="json",
    )
    cache_dir: Path | None = setting(
        "STATE_CACHE_DIR",
        FilePath(),
        "The folder that keeps the state for [a start without a "
        "broker](operations.md#a-start-without-a-broker). If the folder cannot be written to, "
        "the service does not start.",
        default=None,
    )
    history: int = setting(
        "STATE_HISTORY",
        whole_number("entries", 0, 1000),
        "How many states, and how many refused messages, `/state/history` has.",
        default=100,
    )
    max_stale_seconds: int | None = setting(
        "STATE_MAX_STALE_SECONDS",
        whole_number("seconds", 1, LONGEST_STALE_SECONDS),
        "How long the state may be stale before `/readyz` answers 503. If it is not set, "
        "`/readyz` ignores staleness.",
        default=None,
    )
    max_waiting: int | None = setting(
        "STATE_MAX_WAITING",
        fields.Integer(
            validate=validate.Range(min=0, error=WAITING_ACCEPTED),
            error_messages={"invalid": WAITING_ACCEPTED},
            metadata={ACCEPTED: WAITING_ACCEPTED},
        ),
        "How many streams and waiting reads a worker may have at once. If it is not set: half "
        "of the worker's threads, which is 500 by default.",
        default=None,
    )
    log_level: str = setting(
        "LOG_LEVEL",
        OneOf("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"),
        "The lowest level that is logged.",
        default="INFO",
    )
    log_format: str = setting(
        "LOG_FORMAT",
        OneOf("text", "json"),
        "The format of log lines. With `json` each line is a JSON object.",
        default="text",
    )
    api_token: str | None = setting(
        "API_TOKEN",
        matching(TOKEN, TOKEN_ACCEPTED),
        "The token that every request has to send, except requests for the probes and the pages.",
        default=None,
        is_secret=True,
    )
    api_token_file: str | None = setting(
        "API_TOKEN_FILE",
        readable_file(),
        "The file that holds the token. It may hold several tokens, one per line. Each of "
        "them is accepted.",
        default=None,
    )
    security: SecuritySettings = dataclasses.field(default_factory=SecuritySettings)
    model: ModelSettings | None = None

    def __post_init__(self) -> None:
        if self.api_token:
            self.security.redactor.add(self.api_token)

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Settings:
        """Read the variables; one that is empty counts as not set.

        Raises:
            SettingsError: a value is missing or makes no sense; names that are not known and are
                like one that is are told too.
        """
        try:
            settings = read(cls, environ, _check)
            security = SecuritySettings.from_environ(environ)
            model = ModelSettings.from_environ(environ, is_used=settings.loader == ONNX)
        except SettingsError as error:
            raise SettingsError("; ".join([str(error), *unknown_names(environ)])) from error
        complete = dataclasses.replace(settings, security=security, model=model)
        complete.api_tokens()  # from now on they are there, whatever becomes of their file
        return complete

    def api_tokens(self) -> tuple[str, ...]:
        """The tokens that are accepted now; none if there is no need of one.

        Raises:
            OSError, ValueError: the file cannot be used, and never could.
        """
        return self._api_tokens.current()

    @functools.cached_property
    def _api_tokens(self) -> Reloaded[tuple[str, ...]]:
        def make() -> tuple[str, ...]:
            if self.api_token_file is None:
                return (self.api_token,) if self.api_token else ()
            tokens = read_tokens(self.api_token_file)
            for token in tokens:
                self.security.redactor.add(token)
            return tokens

        files = [self.api_token_file] if self.api_token_file else []
        return Reloaded("API_TOKEN_FILE", files, make, pause=TOKENS_SECONDS)

    def redact(self, text: str) -> str:
        """Take the secrets out of a text."""
        return self.security.redactor.redact(text)

    def __str__(self) -> str:
        of_security = [
            (name, value) for name, value, default in _shown(self.security) if value != default
        ]
        own = [(name, value) for name, value, _ in _shown(self) if name != "security"]
        shown = [("protocol", self.security.protocol), *of_security, *own]
        return ", ".join(
            f"{name}={value}" for name, value in dict(shown).items() if value is not None
        )


def _shown(settings: Settings | SecuritySettings) -> Iterator[tuple[str, object, object]]:
    """Names, values and defaults, without secrets."""
    for field in dataclasses.fields(settings):
        if field.repr:
            yield field.name, getattr(settings, field.name), field.default


def read_tokens(file: str) -> tuple[str, ...]:
    """Give the tokens in a file, a line each; lines that are empty are left out.

    Raises:
        OSError: it cannot be read.
        ValueError: a line is no token, or there is none.
    """
    tokens = tuple(line.strip() for line in read_text(file).splitlines() if line.strip())
    if not tokens or not all(re.match(TOKEN, token) for token in tokens):
        raise ValueError(f"{file}: {TOKEN_ACCEPTED}, in one line or more")
    return tokens


def _check(settings: Settings, given: Collection[str]) -> None:
    if "KAFKA_CONSUMER_GROUP_PREFIX" in given and not settings.commit_positions:
        raise fault("KAFKA_CONSUMER_GROUP_PREFIX", "accepted only with KAFKA_COMMIT_POSITIONS=true")
    require_one_form(given, "API_TOKEN")
    try:
        settings.api_tokens()
    except (OSError, ValueError) as error:
        raise fault("API_TOKEN_FILE", str(error)) from error


def unknown_names(environ: Mapping[str, str]) -> list[str]:
    """A line for each variable that has no effect and is like one that has.

    Others are let be: `KAFKA_HEAP_OPTS` is for Kafka's own tools, and Kubernetes sets
    `KAFKA_PORT` for a service of that name.
    """
    known = set[str]().union(*map(variables, (Settings, SecuritySettings, ModelSettings)))
    given = [name for name, value in environ.items() if value and name.startswith(PREFIXES)]
    return misspelt(given, known, ALIASES)
