"""`kafka-state produce`, which producer.py calls too."""

from __future__ import annotations

import itertools
import logging
import math
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click
from marshmallow import ValidationError

from app.commands.client import ServiceClient
from app.commands.messages import (
    Lines,
    earlier_message,
    in_trace_of,
    model_state,
    paced,
    state_message,
    summary,
)
from app.commands.waiting import require_following, wait_until_served
from app.settings import Settings, SettingsError
from app.strict_json import parse_json
from app.topic_log import Delivery, KafkaError, NotTaken, Outgoing, check_settings, explain
from app.web.schemas import OFFSET_ACCEPTED, OffsetField

FEW = 10


class Json(click.ParamType[list[Any]]):
    name = "json"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> list[Any]:
        """Give the value in a list, so that null is not taken for an option left out."""
        try:
            return [parse_json(value)]
        except ValueError as error:
            self.fail(f"{value!r} is {error}. A text needs quotes: '\"text\"'.", param, ctx)


class PartitionOffset(click.ParamType[tuple[int, int]]):
    name = "partition:offset"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        try:
            given: tuple[int, int] = OffsetField().deserialize(value)
        except ValidationError:
            self.fail(f"{value!r}: {OFFSET_ACCEPTED}", param, ctx)
        return given


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
    type=PartitionOffset(),
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
        # settings of the service alone are not read here
        about_kafka = {n: value for n, value in os.environ.items() if n.startswith("KAFKA_")}
        settings = Settings.from_environ(about_kafka)
        sys.path.insert(0, os.getcwd())  # where gunicorn looks for a token provider too
        check_settings(settings)
    except SettingsError as error:
        raise click.ClickException(str(error)) from error
    logging.getLogger("kafka").setLevel(logging.CRITICAL)  # what matters of it is said below
    service = ServiceClient(wait) if wait else None
    if service:
        require_following(service, settings.topic)

    if model:
        state = [model_state(model, uri, name, version)]
    lines = Lines(sys.stdin.buffer if stdin else ())
    total = None if stdin else count or 1
    try:
        if again:
            messages: Iterator[Outgoing] = iter([earlier_message(settings, *again)])
        elif total is None:
            messages = map(Outgoing, lines)
        else:
            messages = (Outgoing(state_message(state)) for _ in range(total))
        delivery = Delivery(settings)
    except (KafkaError, OSError) as error:
        raise click.ClickException(explain(error, settings)) from error
    messages = paced(in_trace_of(os.environ, messages), rate)
    trouble = _send(delivery, messages, total, settings.topic, lines)
    if trouble:
        not_waited = f"; {service.url} is not asked whether it serves them" if service else ""
        raise click.ClickException(f"{trouble}{not_waited}")
    if service:
        wait_until_served(service, delivery.last_offsets)


def _send(
    delivery: Delivery,
    messages: Iterator[Outgoing],
    total: int | None,
    topic: str,
    lines: Lines,
) -> str | None:
    """Send all; gives what went wrong, None if all were acknowledged.

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
        click.echo(f"Sending message with value: {summary(message.value)}")
        try:
            partition, offset = delivery.send_and_wait(message)
        except NotTaken as refused:
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
