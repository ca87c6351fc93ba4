"""Waiting until a service serves what was sent, or refuses it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import click

from app.commands.client import BAD_REQUEST, OK, NoService, Service

# one wait of those that the service grants, and all of them: longer than any model takes
WAIT_SECONDS, LONGEST_WAIT_SECONDS = 10, 180.0
LOOK_SECONDS = 0.2


def require_following(service: Service, topic: str) -> None:
    """Check that the service follows the topic.

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


def wait_until_served(service: Service, ends: Mapping[int, int]) -> None:
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
    """Give why the message is refused, if it is. Another worker may answer, which has yet to read
    it."""
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
