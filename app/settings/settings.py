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
    client_id: str = setting(
        "KAFKA_CLIENT_ID",
        text(longest=200),
        "What brokers call this client in their logs, metrics and quotas.",
        default="kafka-state",
    )
    client_rack: str | None = setting(
        "KAFKA_CLIENT_RACK",
        text(longest=200),
        "Where this instance is, in the words of the brokers' `broker.rack`: messages are fetched "
        "from a replica there, where the brokers choose one (KIP-392).",
        default=None,
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
    client_options: str = setting(
        "KAFKA_CLIENT_OPTIONS",
        JsonObject(),
        "A JSON object of options that the Kafka client has, and this service no setting for.",
        default="{}",
        is_secret=True,
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
    cache_dir: Path | None = setting(
        "STATE_CACHE_DIR",
        FilePath(),
        "Where the state is kept, for a start while no broker answers; by default nowhere.",
        default=None,
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
        matching(TOKEN, TOKEN_ACCEPTED),
        "Every request but those of the probes and of the page itself has to send it.",
        default=None,
        is_secret=True,
    )
    api_token_file: str | None = setting(
        "API_TOKEN_FILE",
        readable_file(),
        "The file that holds it; of several, a line each, every one is accepted.",
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
