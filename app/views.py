"""What the service answers; every view reads one snapshot of the state."""

from __future__ import annotations

import functools
import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime, timezone
from typing import Any

from flask import (
    Blueprint,
    Response,
    abort,
    after_this_request,
    current_app,
    make_response,
    render_template,
    request,
)
from werkzeug.datastructures import Headers
from werkzeug.exceptions import ServiceUnavailable
from werkzeug.http import http_date, quote_etag

from app.consumer import Consumer
from app.problems import RETRY_AFTER_SECONDS
from app.reading import Reading
from app.schemas import StatusSchema
from app.state import Knowledge, Snapshot, State
from app.waiting import WaitingRoom

blueprint = Blueprint("views", __name__)

# orchestrators ask these, often, and have no token
PROBES = {"/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"}

# by far longer than any wait of the consumer thread
LONGEST_LOOP_SECONDS = 60.0
# proxies close what is silent for a minute
HEARTBEAT_SECONDS = 15.0
RETRY_MS = 1000

_STATUS = StatusSchema()


def _state() -> State:
    return current_app.extensions["state"]  # type: ignore[no-any-return]


def _waiting_room() -> WaitingRoom:
    return current_app.extensions["waiting_room"]  # type: ignore[no-any-return]


def _consumer() -> Consumer:
    return current_app.extensions["consumer"]  # type: ignore[no-any-return]


def _connection() -> socket.socket | None:
    return request.environ.get("gunicorn.socket")


@blueprint.get("/")
def hello() -> Response:
    """A greeting, or for a browser the page that follows the state."""
    html = request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html"
    response = (
        make_response(render_template("page.html", serves_models="model" in current_app.blueprints))
        if html
        else make_response({"message": "Hello World"})
    )
    response.vary.add("Accept")
    return response


@blueprint.get("/state")
def state() -> Response:
    """The current state, once it is what the request waits for."""
    reading = Reading.of(request)
    if reading.preferred_wait is not None:
        _say_that_preference_applied(reading.preferred_wait)
    known = _state().look()
    if reading.wait_seconds and not reading.is_met_by(known):
        with _waiting_room().seat():
            known = _waiting_room().wait_until(
                reading.is_met_by, reading.wait_seconds, _connection()
            )
    snapshot = known.state
    if reading.min_offsets:
        reading.require_partitions(known)
    if not reading.is_read_through(known):
        raise ServiceUnavailable(reading.missing(known), retry_after=RETRY_AFTER_SECONDS)
    return _not_modified(snapshot) if reading.is_known(snapshot.version) else _full(snapshot)


def _say_that_preference_applied(seconds: int) -> None:
    @after_this_request
    def say(response: Response) -> Response:
        response.headers["Preference-Applied"] = f"wait={seconds}"
        return response


def _not_modified(snapshot: Snapshot) -> Response:
    return Response(
        status=304,
        headers=_version_headers(snapshot.version, snapshot.partition, snapshot.offset),
    )


def _full(snapshot: Snapshot) -> Response:
    headers = _headers(snapshot.version, snapshot.partition, snapshot.offset, snapshot.timestamp)
    return Response(snapshot.body, headers=headers.to_wsgi_list())


# the same for every request until there is a newer one; of the snapshot itself what is served
# would be kept too
@functools.lru_cache(maxsize=1)
def _headers(
    version: str, partition: int | None, offset: int | None, timestamp: int | None
) -> Headers:
    headers = _version_headers(version, partition, offset)
    headers["Content-Type"] = "application/json"
    modified = _datetime(timestamp)
    if modified:
        headers["Last-Modified"] = http_date(modified)
    return headers


def _version_headers(version: str, partition: int | None, offset: int | None) -> Headers:
    headers = Headers({"Cache-Control": "no-cache", "ETag": quote_etag(version)})
    if offset is not None:
        headers["X-State-Partition"] = str(partition)
        headers["X-State-Offset"] = str(offset)
    return headers


def _datetime(timestamp: int | None) -> datetime | None:
    """Producers may set any timestamp, also -1 for none and years that no calendar has."""
    if timestamp is None or timestamp < 0:
        return None
    try:
        return datetime.fromtimestamp(timestamp / 1000, timezone.utc)
    except (OverflowError, ValueError, OSError):
        return None


@blueprint.get("/state/stream")
def stream() -> Response:
    """The current state and each newer one as Server-Sent Events."""
    response = Response(mimetype="text/event-stream")
    response.headers["Cache-Control"] = "no-cache"
    response.headers["X-Accel-Buffering"] = "no"  # nginx would keep events back
    if request.method == "GET":
        holding = ExitStack()
        holding.enter_context(_waiting_room().seat())
        response.call_on_close(holding.close)
        response.response = _events(
            _waiting_room(), _connection(), request.headers.get("Last-Event-ID")
        )
    return response


def _events(
    waiting_room: WaitingRoom, connection: socket.socket | None, seen: str | None
) -> Iterator[str]:
    """A reader who is slow gets the newest when it is ready for it, and not those between."""

    def is_newer(known: Knowledge) -> bool:
        return known.snapshot is not None and known.snapshot.version != seen

    def next_event() -> str:
        """As text, for a reader who is slow shall not keep alive what was served."""
        nonlocal seen
        known = waiting_room.wait_until(is_newer, HEARTBEAT_SECONDS, connection)
        if not is_newer(known):
            return ":\n\n"
        seen = known.state.version
        return f"event: state\nid: {seen}\ndata: {known.state.body.decode()}\n\n"

    yield f"retry: {RETRY_MS}\n\n"
    while waiting_room.is_awaited(connection):
        yield next_event()


@blueprint.get("/status")
def status() -> Response:
    """How following goes."""
    text = json.dumps(_STATUS.dump(_consumer().status), indent=2)
    return Response(text + "\n", mimetype="application/json")


@blueprint.get("/metrics")
def metrics() -> Response:
    """What Prometheus is told."""
    text, content_type = current_app.extensions["metrics"].expose(request.headers.get("Accept", ""))
    return Response(text, content_type=content_type)


@blueprint.get("/healthz")
def healthz() -> dict[str, str]:
    """Whether the process and its consumer thread are alive, broker or not."""
    if not _consumer().is_alive():
        abort(503, "the consumer thread is not running")
    silence = _consumer().seconds_since_loop()
    if silence > LONGEST_LOOP_SECONDS:
        abort(503, f"the consumer thread has made no loop for {silence:.0f} s")
    return {"status": "alive"}


@blueprint.get("/readyz")
def readyz() -> dict[str, Any]:
    """Whether the state is known, and without which partitions, if some cannot be read now."""
    _state().read()
    without = {
        str(partition): progress.error
        for partition, progress in _consumer().status.partitions.items()
        if progress.error
    }
    return {"status": "ready", "without": without} if without else {"status": "ready"}
