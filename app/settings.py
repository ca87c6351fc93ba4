"""What the environment says, checked once at the start."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from marshmallow import EXCLUDE, Schema, ValidationError, fields, validate

from app.message import InvalidMessage, canonical_json, parse_json


class SettingsError(ValueError):
    """A setting that makes no sense; its text is one line that names the variable."""


SERVER = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:(?P<port>[0-9]{1,5}))?")


def _bootstrap_servers(given: str) -> None:
    for server in given.split(","):
        match = SERVER.fullmatch(server)
        if not match or not 1 <= int(match["port"] or 9092) <= 65535:
            raise ValidationError("accepted are host:port pairs, separated by commas")


def _milliseconds(variable: str, default: int, least: int) -> fields.Integer:
    accepted = f"accepted is a whole number of milliseconds, {least} or more"
    return fields.Integer(
        load_default=default,
        data_key=variable,
        validate=validate.Range(min=least, error=accepted),
        error_messages={"invalid": accepted},
    )


class _Json(fields.Field[str]):
    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        try:
            return canonical_json(parse_json(value))
        except InvalidMessage as error:
            raise ValidationError("accepted is a JSON value") from error


class _UpperCase(fields.String):
    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        return str(super()._deserialize(value, attr, data, **kwargs)).upper()


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
    bootstrap_servers = fields.String(
        load_default="localhost:9092",
        data_key="KAFKA_BOOTSTRAP_SERVERS",
        validate=_bootstrap_servers,
    )
    group_prefix = fields.String(
        load_default="group",
        data_key="KAFKA_CONSUMER_GROUP_PREFIX",
        validate=validate.Regexp(
            r"[^\x00-\x1f\x7f]{1,200}\Z", error="accepted are 1 to 200 printable characters"
        ),
    )
    topic_auto_create = fields.Boolean(
        load_default=True,
        data_key="KAFKA_TOPIC_AUTO_CREATE",
        error_messages={"invalid": "accepted are true and false"},
    )
    metadata_max_age_ms = _milliseconds("KAFKA_METADATA_MAX_AGE_MS", default=30_000, least=100)
    initial = _Json(load_default="0", data_key="STATE_INITIAL")
    log_level = _UpperCase(
        load_default="INFO",
        data_key="LOG_LEVEL",
        validate=validate.OneOf(
            ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], error="accepted are {choices}"
        ),
    )


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
    initial: str = "0"
    log_level: str = "INFO"

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Settings:
        """Read the variables the README lists; one that is empty counts as not set.

        Raises:
            SettingsError: a value is missing or makes no sense.
        """
        schema = _Environment()
        given = {name: value for name, value in environ.items() if value}
        try:
            return cls(**schema.load(given))
        except ValidationError as error:
            raise SettingsError(
                "; ".join(
                    f"{name} is {given[name]!r}: {messages[0]}"
                    if name in given
                    else f"{name} is not set: {messages[0]}"
                    for name, messages in error.messages_dict.items()
                )
            ) from error

    def __str__(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in dataclasses.asdict(self).items())
