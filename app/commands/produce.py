"""`kafka-state produce`, which producer.py calls too."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import logging
import math
import os
import random
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
from marshmallow import ValidationError

from app.commands.service import BAD_REQUEST, OK, NoService, Service
from app.message import no_checkpoint, parse_message
from app.message_errors import InvalidMessage, NotServed
from app.model.schemas import ModelSchema
from app.settings import Settings, SettingsError
from app.settings.settings import ONNX
from app.strict_json import parse_json
from app.topic_log import Delivery, KafkaError, Outgoing, Refused, explain, read_message
from app.web.schemas import OFFSET_ACCEPTED, OffsetField

FEW = 10
SHOWN_CHARACTERS = 1000
# one wait of those that the service grants, and all of them: longer than any model takes
WAIT_SECONDS, LONGEST_WAIT_SECONDS = 10, 180.0
LOOK_SECONDS = 0.2


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


class Place(click.ParamType[tuple[int, int]]):
    name = "partition:offset"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        try:
            place: tuple[int, int] = OffsetField().deserialize(value)
        except ValidationError:
            self.fail(f"{value!r}: {OFFSET_ACCEPTED}", param, ctx)
        return place


class WholeNumber(click.IntRange):
    name = "whole number"


class Number(click.FloatRange):
    name = "number"


@click.command()
@click.option("--state", type=Json(), help="The state to send: any JSON value.")
@click.option("--count", type=WholeNumber(min=1), help="How many messages; 1 if not given.")
@click.option("--rate", type=Number(min=0.001), help="At most this many a second.")
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
@click.option(
    "--again",
    type=Place(),
    help="Send the bytes of this message anew, to its partition: back to an earlier state.",
)
@click.option(
    "--wait",
    metavar="URL",
    help="Wait until the service at this address serves what was sent, or refuses it.",
)
def produce(
    state: list[Any] | None,
    count: int | None,
    rate: float | None,
    stdin: bool,
    model: Path | None,
    uri: str | None,
    name: str | None,
    version: str | None,
    again: tuple[int, int] | None,
    wait: str | None,
) -> None:
    """Send state messages to the topic that the service follows.

    Without an option it sends one message with random numbers. The topic and the brokers come
    from the same environment variables as the service's.
    """
    if stdin and (state or count or model or again):
        raise click.UsageError(
            "--stdin sends what it reads: it excludes --state, --model, --again and --count."
        )
    if again and (state or count or model):
        raise click.UsageError(
            "--again sends one message as it is: it excludes --state, --model and --count."
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
    service = Service(wait) if wait else None
    if service:
        _require_following(service, settings.topic)

    if model:
        state = [_model_state(model, uri, name, version)]
    lines = Lines(sys.stdin.buffer if stdin else ())
    total = None if stdin else count or 1
    try:
        if again:
            messages: Iterator[Outgoing] = iter([_earlier_message(settings, *again)])
        elif total is None:
            messages = map(Outgoing, lines)
        else:
            messages = (Outgoing(_message(state)) for _ in range(total))
        delivery = Delivery(settings)
    except (KafkaError, OSError) as error:
        raise click.ClickException(explain(error, settings)) from error
    trouble = _send(delivery, _paced(messages, rate), total, settings.topic, lines)
    if trouble:
        not_waited = f"; {service.url} is not asked whether it serves them" if service else ""
        raise click.ClickException(f"{trouble}{not_waited}")
    if service:
        _wait_until_served(service, delivery.ends)


def _earlier_message(settings: Settings, partition: int, offset: int) -> Outgoing:
    """
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


def _send(
    delivery: Delivery,
    messages: Iterator[Outgoing],
    total: int | None,
    topic: str,
    lines: Lines,
) -> str | None:
    """Give what is to be told where not all of them were acknowledged, or it was interrupted.

    Args:
        total: how many there are; None if that is not known.
    """
    trouble, interrupted = "", False
    try:
        if total is None or total <= FEW:
            _send_each(delivery, itertools.islice(messages, FEW), topic)
        more = next(messages, None)
        if more is not None:
            _send_many(delivery, itertools.chain([more], messages), total, topic)
    except KafkaError as error:
        trouble = f": {delivery.explain(error)}"
    except KeyboardInterrupt:
        interrupted = True
    finally:
        delivery.close()
    if interrupted:
        return f"interrupted: {delivery.acknowledged} of {delivery.sent} sent were acknowledged"
    failed = (total or delivery.sent) - delivery.acknowledged
    if failed or lines.refused:
        return (
            f"{delivery.acknowledged} acknowledged, {failed} failed, "
            f"{lines.refused} refused{trouble}"
        )
    return None


def _send_each(delivery: Delivery, messages: Iterable[Outgoing], topic: str) -> None:
    """Send one after the other, and show each and where the broker put it."""
    for message in messages:
        click.echo(f"Sending message with value: {_shown(message.value)}")
        try:
            partition, offset = delivery.send_and_wait(message)
        except Refused as refused:
            click.echo(refused, err=True)
        else:
            click.echo(f"Delivered to {topic}, partition {partition}, offset {offset}")


def _send_many(
    delivery: Delivery, messages: Iterable[Outgoing], total: int | None, topic: str
) -> None:
    """Send without waiting in between, on a terminal with a progress bar."""
    on_terminal = sys.stdout.isatty()
    with click.progressbar(messages, total, "Sending", hidden=not on_terminal) as bar:
        for message in bar:
            delivery.send(message)
    delivery.settle()
    click.echo(f"Delivered {delivery.acknowledged} messages to {topic}")


def _require_following(service: Service, topic: str) -> None:
    """
    Raises:
        click.ClickException: nobody would serve what is sent there.
    """
    try:
        followed = service.status()["topic"]
    except NoService as error:
        raise click.ClickException(f"Nothing is sent: {error}") from error
    if followed != topic:
        raise click.ClickException(
            f"Nothing is sent: {service.url} follows {followed}, not {topic}"
        )


def _wait_until_served(service: Service, ends: Mapping[int, int]) -> None:
    """
    Args:
        ends: by partition, the last offset that is to be served.

    Raises:
        click.ClickException: one of them is refused, or it cannot be found out.
    """
    try:
        for partition, offset in ends.items():
            _wait_for(service, partition, offset)
    except NoService as error:
        raise click.ClickException(f"Delivered, but it cannot be waited for: {error}") from error
    except KeyboardInterrupt:
        raise click.ClickException("Delivered; interrupted while it was waited for") from None


def _wait_for(service: Service, partition: int, offset: int) -> None:
    place = f"partition {partition}, offset {offset}"
    deadline = time.monotonic() + LONGEST_WAIT_SECONDS
    told = ""
    while True:
        answer = service.get(f"/state?min_offset={partition}:{offset}", WAIT_SECONDS)
        if answer.status == OK:
            break
        pending = _pending(service.status(), partition, offset)
        if answer.status == BAD_REQUEST or time.monotonic() > deadline:
            raise click.ClickException(
                f"Not served by {service.url}: {place}: {pending or answer.body.get('detail')}"
            )
        if pending and pending != told:
            click.echo(f"Not yet served: {pending}", err=True)
            told = pending
    if (answer.headers["X-State-Partition"], answer.headers["X-State-Offset"]) == (
        str(partition),
        str(offset),
    ):
        click.echo(f"Served by {service.url}: {place}")
        return
    # something else is: a newer message, or this one is refused
    refused = _refused(service, partition, offset, deadline)
    if refused:
        raise click.ClickException(f"Refused by {service.url}: {place}: {refused}")
    click.echo(f"Read by {service.url}: {place}; a newer message is served")


def _refused(service: Service, partition: int, offset: int, deadline: float) -> str | None:
    """Why the message is refused, if so; another worker may answer, which has yet to read it."""
    while True:
        status = service.status()
        last = status["last_invalid"]
        if last and (last["partition"], last["offset"]) == (partition, offset):
            return f"{last['reason']}: {last['detail']}"
        progress = status["partitions"].get(str(partition)) or {}
        if (progress.get("position") or 0) > offset:
            return None
        if time.monotonic() > deadline:
            raise NoService(f"{service.url} does not read on")
        time.sleep(LOOK_SECONDS)


def _pending(status: dict[str, Any], partition: int, offset: int) -> str | None:
    for pending in status["pending"]:
        if (pending["partition"], pending["offset"]) == (partition, offset):
            return f"{pending['reason']}: {pending['detail']}"
    return None


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
    """
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
        try:
            _require_servable(path)
        except NotServed as error:
            raise click.ClickException(
                f"{path} is not sent, for no instance would serve it: {error.reason}: {error}"
            ) from error
    return state


def _require_servable(path: Path) -> None:
    # what it needs is there where models can be loaded only
    from app.model.loader import OnnxLoader

    settings = Settings.from_environ({"KAFKA_TOPIC": "unused", "STATE_LOADER": ONNX}).model
    assert settings
    OnnxLoader(settings).require_servable(path, no_checkpoint)


def _shown(value: bytes | None) -> str:
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
    shown = str(message)
    if len(shown) > SHOWN_CHARACTERS:
        return f"{shown[:SHOWN_CHARACTERS]}… ({len(value or b'')} bytes)"
    return shown


def _paced(messages: Iterable[Outgoing], rate: float | None) -> Iterator[Outgoing]:
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
