"""`kafka-state check`"""

from __future__ import annotations

import dataclasses
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import NoReturn

import click

from app.commands.client import shown_time
from app.following.consumer import Consumer
from app.following.history import History
from app.following.retries import DELAYED
from app.following.state_file import find_state_file
from app.following.status import Status
from app.loaders import find_loader
from app.loaders.protocol import Loader
from app.logs import shorten
from app.server import settings as server_settings
from app.settings import Settings, SettingsError, unknown_names
from app.state import Snapshot, State
from app.topic_log import KafkaError, NotAllowed, check_settings, create_topic, explain, lookup

# longer than a start waits for a partition without a leader
READY_SECONDS = 20.0
# brokers that refuse the group do so within this time
GROUP_SECONDS = 2.0


@click.command()
def check() -> None:
    """Say whether the service would become ready, and what would keep it from that.

    It reads the settings, connects, and reads the last valid message as the service does. It
    sends no message and creates no topic. It commits its position under a consumer group of its
    own, which it deletes at the end; with KAFKA_COMMIT_POSITIONS=false there is none. A model that
    it fetches goes into the cache.

    A line begins with ok; with note where it is not as it should be, and the service becomes ready
    all the same; or with wrong. Ends with 1 where something is wrong. Options of gunicorn count
    where they are in GUNICORN_CMD_ARGS.
    """
    logging.disable(logging.CRITICAL)  # what matters is said below
    settings, loader = _settings()
    servers = dict(lookup.ask_bootstrap_servers(settings))
    _require_one({f"bootstrap server {server}": trouble for server, trouble in servers.items()})
    try:
        cluster = lookup.describe_cluster(settings)
    except (KafkaError, OSError) as error:
        _give_up("cluster", explain(error, settings))
    said = settings.security.protocol
    _good("security", f"{said}, {settings.security.who}" if settings.security.uses_sasl else said)
    troubles = lookup.ask_brokers(settings, cluster)
    _require_one(
        {
            f"broker {number}, advertised at {server}": troubles[number]
            for number, server in cluster.brokers.items()
        }
    )
    if cluster.trouble:
        _give_up(f"topic {settings.topic}", f"nobody can be asked for it: {cluster.trouble}")
    if not cluster.partitions:
        _require_topic(settings)
        return
    _good(f"topic {settings.topic}", f"it is there, partitions: {len(cluster.partitions)}")
    _require_state(settings, loader)


def _settings() -> tuple[Settings, Loader]:
    sys.path.insert(0, os.getcwd())  # where gunicorn looks for what they name, too
    imported = "STATE_LOADER"
    try:
        server_settings.check(os.environ)
        settings = Settings.from_environ(os.environ)
        server_settings.check_waiting(settings.max_waiting, server_settings.threads(os.environ))
        loader = find_loader(settings)
        find_state_file(settings)
        imported = "KAFKA_OAUTH_TOKEN_PROVIDER"
        check_settings(settings)
    except SettingsError as error:
        _give_up("settings", str(error))
    except Exception as error:  # noqa: BLE001  # of a module that is somebody else's
        traceback.print_exc()
        _give_up("settings", f"{imported} cannot be imported: {error!r}")
    for line in unknown_names(os.environ):
        _note("settings", line)
    _good("settings", str(settings))
    return settings, loader


def _require_one(troubles: Mapping[str, KafkaError | None]) -> None:
    """Report each; one that answers is enough."""
    if all(troubles.values()):
        for what, trouble in troubles.items():
            _wrong(what, str(trouble))
        _end()
    for what, trouble in troubles.items():
        if trouble:
            _note(what, str(trouble))
        else:
            _good(what)


def _require_topic(settings: Settings) -> None:
    """Report whether the service could create the topic that is missing."""
    what = f"topic {settings.topic}"
    if not settings.topic_auto_create:
        _give_up(
            what,
            "it does not exist, or the ACLs hide it (DESCRIBE), and KAFKA_TOPIC_AUTO_CREATE is "
            "false",
        )
    try:
        create_topic(settings, validate_only=True)
    except NotAllowed:
        _give_up(
            what,
            f"it does not exist, or the ACLs hide it: {settings.security.who} needs DESCRIBE and "
            "READ to follow it, and CREATE if the service is to create it",
        )
    except (KafkaError, OSError) as error:
        _give_up(what, f"it cannot be created: {explain(error, settings)}")
    if settings.model:
        _give_up(what, "it does not exist; the service creates it, and waits for the first model")
    _note(what, "it does not exist; the service creates it")


def _require_state(settings: Settings, loader: Loader) -> None:
    state = State()
    consumer = Consumer(
        dataclasses.replace(settings, topic_auto_create=False), state, History(0), loader=loader
    )
    consumer.start()
    try:
        _wait_while(lambda: _is_loading(consumer), ready_seconds(settings))
        known = state.view()
        if known.snapshot and consumer.status.group_id:
            _wait_while(lambda: not consumer.status.group_is_refused, GROUP_SECONDS)
        status = consumer.status
    finally:
        consumer.stop(timeout=5)
    for number, partition in status.partitions.items():
        if partition.error:
            _note(f"partition {number}", partition.error)
    if status.last_invalid:
        refused = status.last_invalid
        _note(
            "invalid messages",
            f"{sum(status.invalid_messages.values())} skipped; the last is in partition "
            f"{refused.partition}, offset {refused.offset}: {refused.reason}: {refused.detail}",
        )
    for pending in status.pending:
        _note("newer message", f"it does not load now, and is tried again: {pending}")
    if known.snapshot is None:
        _give_up("last valid message", known.reason)
    _good("ACLs of the topic", "it can be read")
    if status.group_id:
        _tell_of_group(settings, status)
    if settings.model and known.snapshot.served is None:
        _give_up("last valid message", "there is none, and without a model nothing can be served")
    _good("last valid message", described(known.snapshot))


def _is_loading(consumer: Consumer) -> bool:
    # in this order: what is delayed is known by the time that the initial load is done
    return not consumer.initial_load_done.is_set() or any(
        pending.reason == DELAYED for pending in consumer.status.pending
    )


def _wait_while(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while condition() and time.monotonic() < deadline:
        time.sleep(0.05)


def _tell_of_group(settings: Settings, status: Status) -> None:
    groups = f"ACLs of the groups {settings.group_prefix}-*"
    if status.group_is_refused:
        _note(
            groups,
            "they are refused (READ, DELETE): Kafka's tools will not see this service's position",
        )
    else:
        _good(groups)


def ready_seconds(settings: Settings) -> float:
    """How long the service may take until it is ready, or says why it is not."""
    model = settings.model
    return READY_SECONDS + (model.fetch_seconds + model.load_seconds if model else 0)


def described(snapshot: Snapshot) -> str:
    shown = shorten(snapshot.json)
    if snapshot.offset is None:
        return f"there is none, and the initial value is served: {shown}"
    sent_at = f", of {shown_time(snapshot.sent_at)}" if snapshot.sent_at else ""
    return f"partition {snapshot.partition}, offset {snapshot.offset}{sent_at}: {shown}"


def _good(what: str, found: str = "") -> None:
    _tell(click.style("ok   ", fg="green"), what, found)


def _note(what: str, trouble: str) -> None:
    """Report what does not keep the service from becoming ready."""
    _tell(click.style("note ", fg="yellow"), what, trouble)


def _wrong(what: str, trouble: str) -> None:
    _tell(click.style("wrong", fg="red"), what, trouble)


def _tell(mark: str, what: str, said: str | None) -> None:
    click.echo(f"{mark}  {what}{f': {said}' if said else ''}")


def _give_up(what: str, trouble: str) -> NoReturn:
    _wrong(what, trouble)
    _end()


def _end() -> NoReturn:
    click.echo("The service would not become ready.", err=True)
    sys.exit(1)
