"""`kafka-state status`"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from typing import Any, NoReturn

import click

from app.commands.client import OK, NoService, ServiceClient, shown_time
from app.following.event_log import DETAIL_CHARACTERS
from app.logs import shorten

WATCH_SECONDS = 1.0
MOST_PARTITIONS = 20


@click.command()
@click.argument("url", default="http://localhost:8000")
@click.option("--watch", is_flag=True, help="Show it again each second, until Ctrl-C.")
def status(url: str, watch: bool) -> None:
    """Show what the service at URL (http://localhost:8000) says of itself.

    It shows the one worker that answers. Ends with 1 where none answers, or it is not ready. Where
    API_TOKEN or API_TOKEN_FILE is set, the token is sent, of a file the first one.
    """
    service = ServiceClient(url)
    if watch:
        with contextlib.suppress(KeyboardInterrupt):
            _watch(service)
        return
    try:
        click.echo("\n".join(_lines(service)))
        ready = service.get("/readyz")
    except NoService as error:
        raise click.ClickException(str(error)) from error
    if ready.status != OK:
        click.echo(f"ready       {click.style('no', fg='red')}: {ready.body.get('detail')}")
        sys.exit(1)


def _watch(service: ServiceClient) -> NoReturn:
    while True:
        text = _text_or_trouble(service)
        if sys.stdout.isatty():
            click.clear()
        click.echo(f"looked at   {shown_time(datetime.now(timezone.utc))}\n{text}")
        time.sleep(WATCH_SECONDS)


def _text_or_trouble(service: ServiceClient) -> str:
    try:
        return "\n".join(_lines(service))
    except NoService as error:
        return click.style(str(error), fg="red")


def _lines(service: ServiceClient) -> Iterator[str]:
    status = service.status()
    state = service.get("/state")
    group = f"group {status['group_id']}" if status["group_id"] else "no group"
    yield f"version     {status['version']}"
    yield f"topic       {status['topic']} ({status['client']}, {group})"
    since = status["connected_since"]
    if since:
        yield f"following   {click.style('yes', fg='green')}, since {_time(since)}"
    else:
        error = status["last_error"]
        why = f": {error['error']}" if error else ""
        yield f"following   {click.style('no', fg='red')}{why}"
    if status["stale_seconds"]:
        seconds = click.style(f"{status['stale_seconds']:.0f} s", fg="red")
        yield f"stale       the end of the log was confirmed {seconds} ago"
    if status["cached"]:
        yield "cached      the state is from the disk, for the log was not read yet"
    if status["cache_error"]:
        yield f"not cached  {status['cache_error']}"
    if state.status == OK:
        offset = state.headers.get("X-State-Offset")
        where = (
            f"partition {state.headers['X-State-Partition']}, offset {offset}"
            if offset
            else "the initial value"
        )
        yield f"state       {shorten(json.dumps(state.body['state'], ensure_ascii=False))} ({where})"
    else:
        yield f"state       {click.style('not known', fg='red')}: {state.body.get('detail')}"
    yield from _partitions(status["partitions"])
    yield (
        f"counted     {status['updates']} updates, {sum(status['invalid_messages'].values())} "
        f"invalid, {status['skipped_messages']} skipped, {status['connections']} connections, "
        f"{status['failures']} failures"
    )
    last = status["last_invalid"]
    if last:
        yield f"invalid     last at {_time(last['at'])}: {_reason(last)}"
    for pending in status["pending"]:
        yield f"pending     {_reason(pending)}, tried {pending['tries']} times"
    if since and status["last_error"]:
        error = status["last_error"]
        yield f"last error  {_time(error['at'])}: {error['error']}"


def _partitions(partitions: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    shown = sorted(partitions.items(), key=lambda item: int(item[0]))[:MOST_PARTITIONS]
    if shown:
        yield f"{'partition':>21}{'position':>12}{'end':>12}{'lag':>8}"
    for number, progress in shown:
        cells = ["-" if progress[name] is None else progress[name] for name in ("position", "end")]
        lag = "-" if progress["lag"] is None else progress["lag"]
        error = f"  {click.style(progress['error'], fg='red')}" if progress["error"] else ""
        yield f"{number:>21}{cells[0]:>12}{cells[1]:>12}{lag:>8}{error}"
    if len(partitions) > len(shown):
        yield f"{'':12}and {len(partitions) - len(shown)} more"


def _reason(message: Mapping[str, Any]) -> str:
    return (
        f"partition {message['partition']}, offset {message['offset']}: "
        f"{message['reason']}: {shorten(message['detail'], DETAIL_CHARACTERS)}"
    )


def _time(text: str) -> str:
    return shown_time(datetime.fromisoformat(text))
