"""Send state messages to the topic that the service follows.

Without an option it sends one message with random numbers. The topic and the brokers come from
the same environment variables as the service's.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import itertools
import json
import logging
import math
import os
import random
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click
from kafka import KafkaProducer
from kafka.errors import (
    BrokerResponseError,
    KafkaError,
    MessageSizeTooLargeError,
    RequestTimedOutError,
    TopicAuthorizationFailedError,
)

from app.environment import SettingsError
from app.message import InvalidMessage, parse_json, parse_message
from app.model.schemas import ModelSchema
from app.settings import Settings
from app.topic_log import connection_options, explain, reaching, silent_brokers

SEND_SECONDS = 5.0
REQUEST_TIMEOUT_MS = 8_000
ACKNOWLEDGE_SECONDS = 15.0
CLOSE_SECONDS = 1.0
FEW = 10
SHOWN_CHARACTERS = 1000


class Json(click.ParamType[list[Any]]):
    name = "json"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> list[Any]:
        """Give the value in a list, so that null is not taken for an option left out."""
        try:
            return [parse_json(value)]
        except InvalidMessage as error:
            self.fail(f"{value!r} is {error}. A text needs quotes: '\"text\"'.", param, ctx)


@click.command(help=__doc__)
@click.option("--state", type=Json(), help="The state to send: any JSON value.")
@click.option("--count", type=click.IntRange(min=1), help="How many messages; 1 if not given.")
@click.option("--rate", type=click.FloatRange(min=0.001), help="At most this many a second.")
@click.option(
    "--stdin", is_flag=True, help='Send standard input, each line a message such as {"state": 77}.'
)
@click.option(
    "--model",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Send this ONNX model, or with --uri where it is and its checksum.",
)
@click.option("--uri", help="Where instances fetch the model of --model from.")
@click.option("--name", help="Of the model; if not given, of its file, without .onnx.")
@click.option("--version", help="Of the model; if not given, the first 12 digits of its sha256.")
def main(
    state: list[Any] | None,
    count: int | None,
    rate: float | None,
    stdin: bool,
    model: Path | None,
    uri: str | None,
    name: str | None,
    version: str | None,
) -> None:
    if stdin and (state or count or model):
        raise click.UsageError(
            "--stdin sends what it reads: it excludes --state, --model and --count."
        )
    if model and state:
        raise click.UsageError("--model is the state: it excludes --state.")
    if (uri or name or version) and not model:
        raise click.UsageError("--uri, --name and --version are of a model: they need --model.")
    if stdin and sys.stdin is None:
        raise click.UsageError("--stdin: standard input is closed.")
    if rate and math.isnan(rate):
        raise click.UsageError("--rate: nan is not a number of messages.")
    try:
        # what is said of the service alone does not matter here
        about_kafka = {n: value for n, value in os.environ.items() if n.startswith("KAFKA_")}
        settings = Settings.from_environ(about_kafka)
    except SettingsError as error:
        raise click.ClickException(str(error)) from error
    logging.getLogger("kafka").setLevel(logging.CRITICAL)  # what matters of it is said below

    if model:
        state = [_model_state(model, uri, name, version)]
    lines = Lines(sys.stdin.buffer if stdin else ())
    total = None if stdin else count or 1
    values = _paced(lines if total is None else (_message(state) for _ in range(total)), rate)
    trouble = ""
    delivery = Delivery(settings)
    try:
        if total is None or total <= FEW:
            delivery.send_each(itertools.islice(values, FEW))
        more = next(values, None)
        if more is not None:
            delivery.send_many(itertools.chain([more], values), total)
    except KafkaError as error:
        trouble = f": {delivery.explain(error)}"
    finally:
        delivery.close()
    failed = (total or delivery.sent) - delivery.acknowledged
    if failed or lines.refused:
        raise click.ClickException(
            f"{delivery.acknowledged} acknowledged, {failed} failed, "
            f"{lines.refused} refused{trouble}"
        )


def _words(error: KafkaError, settings: Settings) -> str:
    if isinstance(error, TopicAuthorizationFailedError):
        return (
            f"the ACLs do not let {settings.who} write to {settings.topic}: "
            "it needs DESCRIBE and WRITE"
        )
    if isinstance(error, MessageSizeTooLargeError):
        return (
            "the message is larger than they take (max.message.bytes of the topic); a model can "
            "be left elsewhere, and fetched from there: --uri"
        )
    return str(error)


def _message(state: list[Any] | None) -> bytes:
    return json.dumps(
        {
            "message_id": str(random.randint(0, 9999)),
            "text": "some text",
            "state": state[0] if state else random.randint(0, 99),
        }
    ).encode()


def _model_state(
    path: Path, uri: str | None, name: str | None, version: str | None
) -> dict[str, str]:
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
    return state


def _shown(value: bytes) -> str:
    message = json.loads(value.decode("utf-8-sig"))
    state = message.get("state") if isinstance(message, dict) else None
    if isinstance(state, dict) and isinstance(state.get("uri"), str):
        state["uri"] = state["uri"].partition("?")[0]  # there may be a signature in the query
    shown = str(message)
    if len(shown) > SHOWN_CHARACTERS:
        return f"{shown[:SHOWN_CHARACTERS]}… ({len(value)} bytes)"
    return shown


def _paced(values: Iterable[bytes], rate: float | None) -> Iterator[bytes]:
    began = time.monotonic()
    for index, value in enumerate(values):
        if rate:
            time.sleep(max(0.0, began + index / rate - time.monotonic()))
        yield value


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


class Delivery:
    """Sends messages and counts what the broker acknowledges.

    A message that the broker refuses is left out; what else goes wrong ends the sending. The
    client's own thread writes `acknowledged` and `_trouble`; both are final once a method that
    sends has returned.

    Raises (the methods that send):
        KafkaError: the broker is away; what was not sent by then is not sent.
    """

    def __init__(self, settings: Settings) -> None:
        """
        Raises:
            click.ClickException: no broker answers.
        """
        self._settings = settings
        self.sent = 0
        self.acknowledged = 0
        self._trouble: Exception | None = None
        options = {
            "request_timeout_ms": REQUEST_TIMEOUT_MS,
            "max_request_size": 2**31 - 1,  # what is too large is for the brokers to say
        }
        if "delivery_timeout_ms" in KafkaProducer.DEFAULT_CONFIG:  # kafka-python 3
            options["delivery_timeout_ms"] = REQUEST_TIMEOUT_MS
            # with it, a message that is refused takes the next one with it
            options["enable_idempotence"] = False
        try:
            with reaching(settings) as server:
                self._producer = KafkaProducer(
                    **{**connection_options(settings, server), **options},
                    acks="all",
                    max_block_ms=int(SEND_SECONDS * 1000),
                )
        except (KafkaError, OSError) as error:
            raise click.ClickException(explain(error, settings)) from error

    def send_each(self, values: Iterable[bytes]) -> None:
        """Send one after the other, and show each and where the broker put it."""
        for value in values:
            click.echo(f"Sending message with value: {_shown(value)}")
            try:
                placed = self._send(value).get(timeout=ACKNOWLEDGE_SECONDS)
            except RequestTimedOutError as error:
                click.echo(f"Not acknowledged: {self.explain(error)}", err=True)
            except BrokerResponseError as error:
                click.echo(f"Refused by the broker: {self.explain(error)}", err=True)
            else:
                click.echo(
                    f"Delivered to {placed.topic}, partition {placed.partition}, "
                    f"offset {placed.offset}"
                )

    def send_many(self, values: Iterable[bytes], total: int | None) -> None:
        """Send without waiting in between, with a progress bar; `total` is None if not known."""
        with click.progressbar(values, length=total, label="Sending") as bar:
            for value in bar:
                self._raise_trouble()
                with contextlib.suppress(BrokerResponseError):
                    self._send(value)
        self._producer.flush(timeout=ACKNOWLEDGE_SECONDS)
        self._raise_trouble()
        click.echo(f"Delivered {self.acknowledged} messages to {self._settings.topic}")

    def explain(self, error: KafkaError) -> str:
        """Say what went wrong in words that one can act on."""
        if isinstance(error, BrokerResponseError) and not isinstance(error, RequestTimedOutError):
            return _words(error, self._settings)
        silent = silent_brokers(self._settings, self._producer._metadata)
        return silent or _words(error, self._settings)

    def close(self) -> None:
        with contextlib.suppress(KafkaError):  # what is still under way is counted as failed
            self._producer.close(timeout=CLOSE_SECONDS)

    def _send(self, value: bytes) -> Any:
        self.sent += 1
        future = self._producer.send(self._settings.topic, value=value)
        return future.add_callback(self._note_acknowledged).add_errback(self._note_trouble)

    def _note_acknowledged(self, _: object) -> None:
        self.acknowledged += 1

    def _note_trouble(self, error: Exception) -> None:
        if not isinstance(error, BrokerResponseError):
            self._trouble = error

    def _raise_trouble(self) -> None:
        if self._trouble:
            raise self._trouble


if __name__ == "__main__":
    main()
