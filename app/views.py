"""What the service answers; every view reads one snapshot of the state."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from flask import Blueprint, Response, abort, current_app

from app.consumer import Consumer
from app.state import Snapshot, State

blueprint = Blueprint("views", __name__)

# by far longer than any wait of the consumer thread
LONGEST_LOOP_SECONDS = 60.0


def _state() -> State:
    return current_app.extensions["state"]  # type: ignore[no-any-return]


def _consumer() -> Consumer:
    return current_app.extensions["consumer"]  # type: ignore[no-any-return]


@blueprint.get("/")
def hello() -> dict[str, str]:
    return {"message": "Hello World"}


@blueprint.get("/state")
def state() -> Response:
    snapshot = _state().read()
    response = Response(snapshot.body, mimetype="application/json")
    response.headers["Cache-Control"] = "no-cache"
    response.set_etag(_version(snapshot))
    modified = _datetime(snapshot.timestamp)
    if modified:
        response.last_modified = modified
    if snapshot.offset is not None:
        response.headers["X-State-Partition"] = str(snapshot.partition)
        response.headers["X-State-Offset"] = str(snapshot.offset)
    return response


def _datetime(timestamp: int | None) -> datetime | None:
    """Producers may set any timestamp, also -1 for none and years that no calendar has."""
    if timestamp is None or timestamp < 0:
        return None
    try:
        return datetime.fromtimestamp(timestamp / 1000, timezone.utc)
    except (OverflowError, ValueError, OSError):
        return None


def _version(snapshot: Snapshot) -> str:
    """Names a message, not its value, and is the same in every instance."""
    if snapshot.offset is None:
        return "initial"
    place = f"{snapshot.partition}-{snapshot.offset}-{snapshot.timestamp}"
    return f"{place}-{snapshot.topic_id}" if snapshot.topic_id else place


@blueprint.get("/status")
def status() -> dict[str, Any]:
    now = _consumer().status
    return {
        "topic": now.topic,
        "topic_id": now.topic_id,
        "group_id": now.group_id,
        "client": now.client,
        "connected_since": now.connected_since and now.connected_since.isoformat(),
        "partitions": {
            partition: {"position": at.position, "end": at.end, "lag": at.lag}
            for partition, at in now.partitions.items()
        },
        "updates": now.updates,
        "invalid_messages": now.invalid_messages,
        "connections": now.connections,
        "failures": now.failures,
        "last_error": now.last_error
        and {"at": now.last_error.at.isoformat(), "error": now.last_error.error},
    }


@blueprint.get("/healthz")
def healthz() -> dict[str, str]:
    if not _consumer().is_alive():
        abort(503, "the consumer thread is not running")
    silence = _consumer().seconds_since_loop()
    if silence > LONGEST_LOOP_SECONDS:
        abort(503, f"the consumer thread has made no loop for {silence:.0f} s")
    return {"status": "alive"}


@blueprint.get("/readyz")
def readyz() -> dict[str, str]:
    _state().read()
    return {"status": "ready"}
