"""What the service answers; every view reads one snapshot of the state."""

from __future__ import annotations

from datetime import datetime, timezone

from flask import Blueprint, Response, abort, current_app

from app.consumer import Consumer
from app.state import Snapshot, State

blueprint = Blueprint("views", __name__)


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
    response = Response(f'{{"state":{snapshot.json}}}', mimetype="application/json")
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
    return f"{snapshot.partition}-{snapshot.offset}-{snapshot.timestamp}"


@blueprint.get("/healthz")
def healthz() -> dict[str, str]:
    if not _consumer().is_alive():
        abort(503, "the consumer thread is not running")
    return {"status": "alive"}


@blueprint.get("/readyz")
def readyz() -> dict[str, str]:
    _state().read()
    return {"status": "ready"}
