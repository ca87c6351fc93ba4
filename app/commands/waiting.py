"""Waiting until a service serves what was sent, or refuses it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import click

from app.commands.client import BAD_REQUEST, OK, NoService, ServiceClient

# one wait of those that the service grants, and all of them: longer than a model takes by default
WAIT_SECONDS, LONGEST_WAIT_SECONDS = 10, 180.0
POLL_SECONDS = 0.2


def require_following(service: ServiceClient, topic: str) -> None:
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


def wait_until_served(service: ServiceClient, last_offsets: Mapping[int, int]) -> None:
    """
    Args:
        last_offsets: by partition, of what is to be served.

    Raises:
        click.ClickException: one of them is refused, or it cannot be found out.
    """
    try:
        for partition, offset in last_offsets.items():
            _wait_for(service, partition, offset)
    except NoService as error:
        raise click.ClickException(f"Delivered, but it cannot be waited for: {error}") from error
    except KeyboardInterrupt:
        raise click.ClickException("Delivered; interrupted while it was waited for") from None


def _wait_for(service: ServiceClient, partition: int, offset: int) -> None:
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
        time.sleep(POLL_SECONDS)  # a service with no room for who waits answers at once
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


def _refused(service: ServiceClient, partition: int, offset: int, deadline: float) -> str | None:
    """Give why the message is refused, if it is. Another worker may answer, which has yet to read
    it."""
    while True:
        status = service.status()
        # the last also where no history is kept
        history = service.get("/state/history").body.get("refused", [])
        for refused in filter(None, (status["last_invalid"], *history)):
            if (refused["partition"], refused["offset"]) == (partition, offset):
                return f"{refused['reason']}: {refused['detail']}"
        progress = status["partitions"].get(str(partition)) or {}
        if (progress.get("position") or 0) > offset:
            return None
        if time.monotonic() > deadline:
            raise NoService(f"{service.url} does not read on")
        time.sleep(POLL_SECONDS)


def _pending(status: dict[str, Any], partition: int, offset: int) -> str | None:
    for pending in status["pending"]:
        if (pending["partition"], pending["offset"]) == (partition, offset):
            return f"{pending['reason']}: {pending['detail']}"
    return None
