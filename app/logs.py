"""How the service logs: where to, and at what rate."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from pythonjsonlogger.json import JsonFormatter

from app.settings import Settings

log = logging.getLogger(__name__)

# gunicorn's own format, so that a terminal shows one kind of line
TEXT = "[%(asctime)s] [%(process)d] [%(levelname)s] %(message)s"
TEXT_DATE = "%Y-%m-%d %H:%M:%S %z"
SHORT_CHARACTERS = 100
# of a line of a client library, which may hold what somebody else has sent
CLIENT_CHARACTERS = 500
JSON_FIELDS = ["timestamp", "levelname", "process", "name", "message"]
# a terminal would obey them; as JSON writes them
CONTROLS = {code: f"\\u{code:04x}" for code in (*range(0x20), *range(0x7F, 0xA0))}
del CONTROLS[ord("\n")], CONTROLS[ord("\t")]

# at DEBUG these log what their requests are signed with, and what comes of that
TELL_SECRETS = (
    "adlfs", "aiobotocore", "authlib", "aws_msk_iam_sasl_signer", "azure", "boto3", "botocore",
    "fsspec", "gcsfs", "google", "requests_oauthlib", "s3fs", "urllib3",
)  # fmt: skip


def configure(settings: Settings) -> None:
    """Log to stderr, unless the embedding program has already said where to."""
    handler = logging.StreamHandler()
    handler.setFormatter(formatter(settings))
    logging.basicConfig(level=settings.log_level, handlers=[handler])
    # below ERROR the client logs every request and what is in it
    _throttle_client("kafka", ClientLog("The Kafka client"), logging.ERROR)
    _throttle_client("opentelemetry", ClientLog("OpenTelemetry", log.warning), logging.WARNING)
    logging.getLogger("opentelemetry.util.re").addFilter(_hide_header)
    for package in TELL_SECRETS:
        logging.getLogger(package).setLevel(logging.INFO)


def _throttle_client(name: str, handler: ClientLog, level: int) -> None:
    client_log = logging.getLogger(name)
    client_log.setLevel(level)
    client_log.propagate = False
    client_log.handlers = [handler]


def _hide_header(record: logging.LogRecord) -> bool:
    """Of OTEL_EXPORTER_OTLP_HEADERS, in which there are secrets, one is logged that makes no sense."""
    record.args = ("(hidden)",)
    return True


def flush_client_logs() -> None:
    """Log lines of client libraries that were held back, once the rate limit allows."""
    for name in ("kafka", "opentelemetry"):
        for handler in logging.getLogger(name).handlers:
            handler.flush()


def formatter(settings: Settings) -> logging.Formatter:
    """What writes a record as a line of `settings.log_format`, without secrets."""
    if settings.log_format == "json":
        return _Redacted(
            JsonFormatter(
                JSON_FIELDS,
                timestamp=True,
                rename_fields={"levelname": "level", "process": "pid", "name": "logger"},
                json_ensure_ascii=False,  # or secrets would not be recognised
            ),
            settings.redact,
        )
    return _Redacted(_Text(TEXT, TEXT_DATE), settings.redact)


def visible(line: str) -> str:
    """Write a line's control characters as JSON does."""
    return line if line.isprintable() else line.translate(CONTROLS)


def shorten(text: str, most: int = SHORT_CHARACTERS) -> str:
    """Shorten a text for a log line."""
    return text if len(text) <= most else text[:most] + "…"


class _Text(logging.Formatter):
    """Ends a line about a message with where that is."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        line = super().formatMessage(record)
        if getattr(record, "offset", None) is None:
            return line
        return f"{line} (partition {record.partition}, offset {record.offset})"  # type: ignore[attr-defined]


class _Redacted(logging.Formatter):
    def __init__(self, inner: logging.Formatter, redact: Callable[[str], str]) -> None:
        super().__init__()
        self._inner = inner
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        line = self._inner.format(record)
        if not _has_settings(record):
            line = self._redact(line)
        return visible(line)


def _has_settings(record: logging.LogRecord) -> bool:
    """Settings leave out their own secrets. Another setting may have the same value as a secret,
    and to redact it would give that away."""
    args = record.args if isinstance(record.args, tuple) else ()
    return not record.exc_info and any(isinstance(arg, Settings) for arg in args)


class ClientLog(logging.Handler):
    """Lets a few lines a minute of a client library into the log, without their tracebacks.

    A handler, because a logger's filters do not see what its children log.
    """

    def __init__(
        self,
        title: str,
        log_line: Callable[..., None] = log.info,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._title = title
        self._log = Throttle(log_line, limit=2, period=60.0, clock=clock)

    def emit(self, record: logging.LogRecord) -> None:
        self._log("%s says: %s", self._title, shorten(record.getMessage(), CLIENT_CHARACTERS))

    def flush(self) -> None:
        assert self.lock
        with self.lock:
            self._log.flush()


class Throttle:
    """Lets `limit` lines a `period` (seconds) through to `log`.

    Of those left out it keeps the count and the last, which `flush` logs once there is room
    again. For one thread only.
    """

    def __init__(
        self,
        log: Callable[..., None],
        limit: int = 3,
        period: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._limit = limit
        self._period = period
        self._clock = clock
        self._period_began = clock()
        self._logged = 0
        self._held: tuple[str, tuple[object, ...], dict[str, Any]] | None = None
        self._left_out = 0

    def __call__(self, line: str, *args: object, **options: Any) -> None:
        if not self._held and self._has_room():
            self._log(line, *args, **options)
            return
        self._left_out += bool(self._held)
        self._held = line, args, options
        self.flush()

    def flush(self) -> None:
        if self._held and self._has_room():
            line, args, options = self._held
            if self._left_out:
                line, args = line + " (and %d more like it)", (*args, self._left_out)
            self._log(line, *args, **options)
            self._held, self._left_out = None, 0

    def _has_room(self) -> bool:
        now = self._clock()
        if now - self._period_began >= self._period:
            self._period_began, self._logged = now, 0
        if self._logged == self._limit:
            return False
        self._logged += 1
        return True
