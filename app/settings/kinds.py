"""Kinds of values that a setting can have, and how each says what it accepts."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar, TypeVar
from urllib.parse import urlsplit

from marshmallow import ValidationError, fields, validate

from app.strict_json import canonical_json, parse_json

T = TypeVar("T")

# under this name a kind's metadata has what is accepted, as its errors say it
ACCEPTED = "accepted"

LONGEST_MS = 2**31 - 1  # what Kafka's protocol has room for

# 1 GB and 1 GiB, and Kubernetes' 1G and 1Gi
SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([kmgt])(i?)b?", re.IGNORECASE | re.ASCII)
POWERS = {"k": 1, "m": 2, "g": 3, "t": 4}

# a host's name has labels of 1 to 63 characters (RFC 1123, 2.1)
LABEL = "[A-Za-z0-9_-]{1,63}"
SERVER = re.compile(
    rf"({LABEL}(\.{LABEL})*\.?|\[(?P<ipv6>[0-9A-Fa-f:.]+)\])(:(?P<port>[0-9]{{1,5}}))?"
)
# package.module.name, or package.module:name as entry points are written
DOTTED_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*[.:][^\W\d]\w*(\.[^\W\d]\w*)*")


def text(longest: int) -> fields.String:
    accepted = f"accepted are 1 to {longest} printable characters, in UTF-8"

    def check(given: str) -> None:
        if not given.isprintable() or len(given) > longest:
            raise ValidationError(accepted)

    return fields.String(validate=check, metadata={ACCEPTED: accepted})


def matching(pattern: str, accepted: str, missing: str | None = None) -> fields.String:
    """A text of some form.

    Args:
        missing: what is said where a value is required, and there is none.
    """
    return fields.String(
        validate=validate.Regexp(pattern, error=accepted),
        error_messages={"required": missing or accepted},
        metadata={ACCEPTED: accepted},
    )


def boolean() -> fields.Boolean:
    accepted = "accepted are true and false"
    return fields.Boolean(error_messages={"invalid": accepted}, metadata={ACCEPTED: accepted})


def whole_number(unit: str | None, least: int, most: int) -> fields.Integer:
    of_unit = f" of {unit}" if unit else ""
    return _integer(fields.Integer, f"accepted is a whole number{of_unit}", least, most)


def milliseconds(least: int = 0, most: int = LONGEST_MS) -> fields.Integer:
    return whole_number("milliseconds", least, most)


def size(least: int, most: int) -> fields.Integer:
    return _integer(
        Size, "accepted is a size such as 500MB, 1GiB or a number of bytes", least, most
    )


def _integer(kind: type[fields.Integer], accepted: str, least: int, most: int) -> fields.Integer:
    accepted = f"{accepted}, {least} to {most}"
    return kind(
        validate=validate.Range(min=least, max=most, error=accepted),
        error_messages={"invalid": accepted},
        metadata={ACCEPTED: accepted},
    )


class Size(fields.Integer):
    """A number of bytes, with a unit or without."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> int:
        match = SIZE.fullmatch(value)
        if match:
            number, unit, binary = match.groups()
            value = round(Decimal(number) * (1024 if binary else 1000) ** POWERS[unit.lower()])
        return super()._deserialize(value, attr, data, **kwargs)


class OneOf(fields.String):
    """One of some words, in any case.

    Args:
        choices: all lower case, or all upper case; what is given is converted to that.
    """

    def __init__(self, *choices: str, **kwargs: Any) -> None:
        self._convert: Callable[[str], str] = str.lower if choices[0].islower() else str.upper
        accepted = f"accepted are {', '.join(choices)}"
        super().__init__(
            validate=validate.OneOf(choices, error=accepted),
            metadata={ACCEPTED: accepted},
            **kwargs,
        )

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        return self._convert(super()._deserialize(value, attr, data, **kwargs))


class _Kind(fields.Field[T]):
    ACCEPTED: ClassVar[str]

    def __init__(self) -> None:
        super().__init__(metadata={ACCEPTED: self.ACCEPTED})


class Words(_Kind[tuple[str, ...]]):
    """Separated by commas; blanks around them are left out."""

    ACCEPTED = "accepted are words, separated by commas"

    def _deserialize(
        self, value: Any, attr: str | None, data: Any, **kwargs: Any
    ) -> tuple[str, ...]:
        return tuple(map(str.strip, value.split(",")))


class Pairs(_Kind[tuple[tuple[str, str], ...]]):
    """name=value pairs, separated by commas; blanks around them are left out."""

    ACCEPTED = "accepted are name=value pairs, separated by commas"

    def _deserialize(
        self, value: Any, attr: str | None, data: Any, **kwargs: Any
    ) -> tuple[tuple[str, str], ...]:
        pairs = [pair.strip().partition("=") for pair in value.split(",")]
        for name, _, given in pairs:
            if not name.isascii() or not name.isalpha() or not given or not given.isprintable():
                raise ValidationError(self.ACCEPTED)
        return tuple((name, given) for name, _, given in pairs)


class Servers(_Kind[str]):
    """Host:port pairs; blanks around them are left out."""

    ACCEPTED = "accepted are host:port pairs, separated by commas"

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        servers = [server.strip(" \t") for server in value.split(",")]
        for server in servers:
            match = SERVER.fullmatch(server)
            port = int(match["port"] or 9092) if match else 0
            if not match or not 1 <= port <= 65535 or not _is_ip(match["ipv6"]):
                raise ValidationError(self.ACCEPTED)
        return ",".join(servers)


def _is_ip(given: str | None) -> bool:
    try:
        return given is None or bool(ipaddress.IPv6Address(given))
    except ValueError:
        return False


class Json(_Kind[str]):
    """JSON text, made compact."""

    ACCEPTED = "accepted is a JSON value"

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        try:
            return canonical_json(parse_json(value))
        except ValueError as error:
            raise ValidationError(Json.ACCEPTED) from error


class JsonObject(Json):
    """The text of a JSON object, made compact."""

    ACCEPTED = "accepted is a JSON object"

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        compact = super()._deserialize(value, attr, data, **kwargs)
        if not compact.startswith("{"):
            raise ValidationError(self.ACCEPTED)
        return compact


class FilePath(_Kind[Path]):
    """The path of a file or folder that need not be there."""

    ACCEPTED = "accepted is a path"

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Path:
        return Path(value)


def readable_file() -> fields.String:
    accepted = "accepted is a file that can be read"

    def check(given: str) -> None:
        try:
            Path(given).read_bytes()
        except OSError as error:
            raise ValidationError(f"{accepted} ({error.strerror})") from error

    return fields.String(validate=check, metadata={ACCEPTED: accepted})


def http_url() -> fields.String:
    accepted = (
        "accepted is an address that begins with https:// or http://, without a password or a query"
    )

    def check(given: str) -> None:
        try:
            parts = urlsplit(given)
            is_one = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            is_one = False
        if (
            not is_one
            or parts.username is not None
            or parts.query
            or parts.fragment
            or not given.isprintable()
        ):
            raise ValidationError(accepted)

    return fields.String(validate=check, metadata={ACCEPTED: accepted})
