"""The messages that `kafka-state produce` sends."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from app.message import no_checkpoint, parse_message
from app.message_errors import InvalidMessage, RetryableError
from app.model.schemas import ModelSchema
from app.settings import Settings
from app.settings.model import ModelSettings
from app.topic_log import Outgoing, read_message
from app.tracing import NAMES

SHOWN_CHARACTERS = 1000


def earlier_message(settings: Settings, partition: int, offset: int) -> Outgoing:
    """Read a message that was sent before.

    Raises:
        click.ClickException: no service would take it.
        KafkaError: there is none, or it cannot be read.
    """
    message = read_message(settings, partition, offset)
    try:
        parse_message(message.value)
    except InvalidMessage as error:
        raise click.ClickException(
            f"The message in partition {partition}, offset {offset} is not sent again, for it is "
            f"not valid: {error.reason}: {error}"
        ) from error
    return message


def state_message(state: list[Any] | None) -> bytes:
    return json.dumps(
        {
            "message_id": str(random.randint(0, 9999)),
            "text": "some text",
            "state": state[0] if state else random.randint(0, 99),
        }
    ).encode()


def model_state(
    path: Path, uri: str | None, name: str | None, version: str | None
) -> dict[str, str]:
    """Describe a model as the `state` of a message.

    Raises:
        click.ClickException: no instance would serve it.
    """
    content = path.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    state = {
        "name": name or path.stem,
        "version": version or sha256[:12],
        "sha256": sha256,
        **({"uri": uri} if uri else {"data": base64.b64encode(content).decode()}),
    }
    for field, messages in ModelSchema().validate(state).items():
        raise click.UsageError(f"--{field} is {state[field]!r}: {messages[0]}.")
    if find_spec("onnxruntime"):
        _require_servable(path)
    return state


def _require_servable(path: Path) -> None:
    # their packages come with the extra `onnx` only
    from app.model.model import Limits
    from app.model.trial import Trials

    any_request = Limits(threads=1, request_bytes=sys.maxsize)
    try:
        Trials().require_servable(path, any_request, ModelSettings().load_seconds, no_checkpoint)
    except InvalidMessage as error:
        raise click.ClickException(
            f"{path} is not sent, for no instance would serve it: {error.reason}: {error}"
        ) from error
    except RetryableError as error:
        click.echo(f"{path} could not be tried here: {error.reason}: {error}", err=True)


def summary(value: bytes | None) -> str:
    """As much of a message as belongs on a terminal, without what may be a secret."""
    try:
        message = json.loads((value or b"").decode("utf-8-sig"))
    except ValueError:
        return f"({len(value or b'')} bytes)"
    state = message.get("state") if isinstance(message, dict) else None
    if isinstance(state, dict) and isinstance(state.get("uri"), str):
        state["uri"] = state["uri"].partition("?")[0]  # there may be a signature in the query
    if isinstance(state, dict) and {"sha256", "data"} <= state.keys():
        state["data"] = f"({len(str(state['data']))} characters of base64)"
    text = str(message)
    if len(text) > SHOWN_CHARACTERS:
        return f"{text[:SHOWN_CHARACTERS]}… ({len(value or b'')} bytes)"
    return text


def in_trace_of(environ: Mapping[str, str], messages: Iterable[Outgoing]) -> Iterator[Outgoing]:
    """Have the messages belong to the trace that started this command, if one did.

    https://opentelemetry.io/docs/specs/otel/context/env-carriers/
    """
    headers = [
        (name, environ[name.upper()].encode(errors="replace"))
        for name in NAMES
        if environ.get(name.upper())
    ]
    for message in messages:
        yield message._replace(headers=[*message.headers, *headers])


def paced(messages: Iterable[Outgoing], rate: float | None) -> Iterator[Outgoing]:
    began = time.monotonic()
    for index, message in enumerate(messages):
        if rate:
            time.sleep(max(0.0, began + index / rate - time.monotonic()))
        yield message


class Lines:
    """The messages in `lines`. One that the service would skip is named and left out.

    Attributes:
        refused: how many were left out so far.
    """

    def __init__(self, lines: Iterable[bytes]) -> None:
        self._lines = lines
        self.refused = 0

    def __iter__(self) -> Iterator[bytes]:
        for number, line in enumerate(map(bytes.strip, self._lines), start=1):
            try:
                if line:
                    parse_message(line)
                    yield line
            except InvalidMessage as error:
                self.refused += 1
                click.echo(f"Line {number} is not sent: {error}", err=True)
