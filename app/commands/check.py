"""`kafka-state check`"""

from __future__ import annotations

import dataclasses
import logging
import os
import sys
import time
from datetime import datetime
from typing import NoReturn

import click

from app.consumer import Consumer
from app.environment import SettingsError
from app.journal import view
from app.loaders import find_loader
from app.loading import Loader
from app.server import variables
from app.settings import Settings, unknown_names
from app.state import Snapshot, State
from app.topic_log import KafkaError, create_topic, explain, survey

# longer than a start waits for a partition without a leader
READY_SECONDS = 20.0
# by then the brokers have refused a group that they refuse
GROUP_SECONDS = 2.0


@click.command()
def check() -> None:
    """Say whether the service would become ready, and what would keep it from that.

    It reads the settings, connects, and reads the last valid message as the service does. It
    changes nothing: a topic that is missing is not created. Ends with 1 where the service would
    not become ready.
    """
    logging.disable(logging.CRITICAL)  # what matters is said below
    settings, loader = _settings()
    for server, trouble in survey.ask_bootstrap_servers(settings):
        _tell(f"bootstrap server {server}", trouble)
    try:
        cluster = survey.look_at(settings)
    except (KafkaError, OSError) as error:
        _give_up("cluster", explain(error, settings))
    said = settings.security_protocol
    _tell("security", None, f"{said}, {settings.who}" if settings.uses_sasl else said)
    for number, trouble in survey.ask_brokers(settings, cluster).items():
        _tell(f"broker {number}, advertised at {cluster.brokers[number]}", trouble)
    if cluster.trouble:
        _give_up(f"topic {settings.topic}", f"nobody can be asked for it: {cluster.trouble}")
    if not cluster.partitions:
        _require_topic(settings)
        return
    _tell(f"topic {settings.topic}", None, f"it is there, partitions: {len(cluster.partitions)}")
    _require_state(settings, loader)


def _settings() -> tuple[Settings, Loader]:
    sys.path.insert(0, os.getcwd())  # where gunicorn looks for a loader too
    try:
        variables.check(os.environ)
        settings = Settings.from_environ(os.environ)
        loader = find_loader(settings)
    except SettingsError as error:
        _give_up("settings", str(error))
    for line in unknown_names(os.environ):
        _tell("settings", line)
    _tell("settings", None, str(settings))
    return settings, loader


def _require_topic(settings: Settings) -> None:
    """A topic that is missing is one that the service creates, if it may."""
    what = f"topic {settings.topic}"
    if not settings.topic_auto_create:
        _give_up(
            what,
            "it does not exist, or the ACLs hide it (DESCRIBE), and KAFKA_TOPIC_AUTO_CREATE is "
            "false",
        )
    try:
        create_topic(settings, validate_only=True)
    except (KafkaError, OSError) as error:
        _give_up(what, f"it cannot be found (DESCRIBE) or created: {explain(error, settings)}")
    _tell(what, None, "it does not exist; the service creates it")


class _Looking(Consumer):
    """The service's own consumer, which tells what the ACLs forbid."""

    group_is_refused = False

    def may_not_commit(self) -> None:
        self.group_is_refused = True


def _require_state(settings: Settings, loader: Loader) -> None:
    state = State()
    consumer = _Looking(dataclasses.replace(settings, topic_auto_create=False), state, (), loader)
    consumer.start()
    try:
        consumer.settled.wait(READY_SECONDS)
        known = state.look()
        deadline = time.monotonic() + GROUP_SECONDS
        while known.snapshot and not consumer.group_is_refused and time.monotonic() < deadline:
            time.sleep(0.05)
        progress = consumer.status.partitions
        refused = consumer.status.last_invalid
    finally:
        consumer.stop(timeout=5)
    for number, partition in progress.items():
        if partition.error:
            _tell(f"partition {number}", partition.error)
    if refused:
        where = f"partition {refused.partition}, offset {refused.offset}"
        _tell("invalid message", f"{where}: {refused.reason}: {refused.detail}")
    if known.snapshot is None:
        _give_up("last valid message", known.reason)
    _tell("ACLs of the topic", None, "it can be read")
    _tell(
        f"ACLs of the groups {settings.group_prefix}-*",
        "they are refused (READ, DELETE): Kafka's tools will not see this service's position"
        if consumer.group_is_refused
        else None,
    )
    _tell("last valid message", None, _described(known.snapshot))


def _described(snapshot: Snapshot) -> str:
    shown = view(snapshot.json)
    if snapshot.offset is None:
        return f"there is none, and the initial value is served: {shown}"
    where = f"partition {snapshot.partition}, offset {snapshot.offset}"
    return f"{where}{_at(snapshot.timestamp)}: {shown}"


def _at(timestamp: int | None) -> str:
    """Producers may set any."""
    try:
        return f", of {datetime.fromtimestamp((timestamp or 0) / 1000):%Y-%m-%d %H:%M:%S}"
    except (OverflowError, ValueError, OSError):
        return ""


def _tell(what: str, trouble: str | None, found: str = "") -> None:
    mark = click.style("wrong", fg="red") if trouble else click.style("ok   ", fg="green")
    said = trouble or found
    click.echo(f"{mark}  {what}{f': {said}' if said else ''}")


def _give_up(what: str, trouble: str) -> NoReturn:
    _tell(what, trouble)
    click.echo("The service would not become ready.", err=True)
    sys.exit(1)
