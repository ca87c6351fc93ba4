"""The views; each reads one snapshot of the state."""

from __future__ import annotations

import functools
import json
import socket
from contextlib import ExitStack, nullcontext
from datetime import datetime
from typing import Any

from flask import (
    Blueprint,
    Response,
    abort,
    after_this_request,
    make_response,
    render_template,
    request,
    url_for,
)
from marshmallow import ValidationError
from werkzeug.datastructures import Authorization, Headers
from werkzeug.exceptions import BadRequest, ServiceUnavailable
from werkzeug.http import http_date, quote_etag

from app.service import Service, current_service
from app.state import Snapshot, StateUnknown, StateView
from app.web.conditions import Conditions
from app.web.errors import RETRY_AFTER_SECONDS
from app.web.limits import WaitingRequests
from app.web.schemas import HistorySchema, StatusSchema, StreamQuery
from app.web.stream import Stream

blueprint = Blueprint("views", __name__)

# orchestrators ask these, often, and have no token
PROBES = {"/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"}

# by far longer than any wait of the consumer thread
LONGEST_LOOP_SECONDS = 60.0
# a cache asks each time; and who compresses on the way would change the ETag, and hold events back
CACHE_CONTROL = "no-cache, no-transform"

_STATUS = StatusSchema()
_HISTORY = HistorySchema()
_STREAM_QUERY = StreamQuery()


def client_connection() -> socket.socket | None:
    """The connection of the request that is being answered; None where the server does not show it."""
    return request.environ.get("gunicorn.socket")


@blueprint.app_template_global()
def relative(endpoint: str, **values: Any) -> str:
    """Give an address for a page: relative, for a proxy may have taken a prefix away."""
    return url_for(endpoint, **values).removeprefix(request.script_root).removeprefix("/")


@blueprint.get("/")
def hello() -> Response:
    """A greeting, or for a browser the page that follows the state."""
    html = request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html"
    response = (
        make_response(
            render_template("page.html", serves_models=current_service().model is not None)
        )
        if html
        else make_response({"message": "Hello World"})
    )
    response.vary.add("Accept")
    return response


@blueprint.get("/state")
def state() -> Response:
    """The current state, once it is what the request waits for."""
    service, conditions = current_service(), Conditions.of(request)
    view = service.state.view()
    if not conditions.is_met_by(view):
        view = _wait_for(service.waiting, conditions)
    snapshot = view.require_snapshot()
    conditions.require_partitions(view)
    if not conditions.is_read_through(view):
        raise ServiceUnavailable(
            conditions.describe_unreached(view), retry_after=RETRY_AFTER_SECONDS
        )
    answer = _not_modified(snapshot) if conditions.is_known(snapshot.version) else _full(snapshot)
    if stale_seconds := service.consumer.status.stale_seconds:
        answer.headers["X-State-Stale"] = str(int(stale_seconds))
    return answer


def _wait_for(waiting: WaitingRequests, conditions: Conditions) -> StateView:
    with waiting.slot() if conditions.wait_seconds else nullcontext():
        if conditions.preferred_wait is not None:
            _say_that_preference_applied(conditions.preferred_wait)
        return waiting.wait_until(
            conditions.is_met_by, conditions.wait_seconds, client_connection()
        )


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
    headers = _headers(snapshot.version, snapshot.partition, snapshot.offset, snapshot.sent_at)
    return Response(snapshot.body, headers=headers.to_wsgi_list())


# kept by these values and not by the snapshot, with which its served object would be kept
@functools.lru_cache(maxsize=1)
def _headers(
    version: str, partition: int | None, offset: int | None, sent_at: datetime | None
) -> Headers:
    headers = _version_headers(version, partition, offset)
    headers["Content-Type"] = "application/json"
    if sent_at:
        headers["Last-Modified"] = http_date(sent_at)
    return headers


def _version_headers(version: str, partition: int | None, offset: int | None) -> Headers:
    headers = Headers({"Cache-Control": CACHE_CONTROL, "ETag": quote_etag(version)})
    if offset is not None:
        headers["X-State-Partition"] = str(partition)
        headers["X-State-Offset"] = str(offset)
    return headers


@blueprint.get("/state/history")
def history() -> Response:
    """The last states that were served, and the last messages that were refused."""
    service = current_service()
    if service.settings.history == 0:
        abort(404, "there is no history: STATE_HISTORY is 0")
    return _json(_HISTORY.dump(service.history))


@blueprint.get("/state/stream")
def stream() -> Response:
    """The current state and each newer one as Server-Sent Events, and how following goes."""
    wants_status = _wants_status()
    response = Response(mimetype="text/event-stream")
    response.headers["Cache-Control"] = CACHE_CONTROL
    response.headers["X-Accel-Buffering"] = "no"  # nginx would keep events back
    if request.method == "GET":
        service, holding = current_service(), ExitStack()
        holding.enter_context(service.waiting.slot())
        response.call_on_close(holding.close)
        response.response = Stream(
            service.waiting,
            client_connection(),
            request.headers.get("Last-Event-ID"),
            service.status_events if wants_status else None,
            functools.partial(_is_still_accepted, service, request.authorization),
        )
    else:
        response.response = iter(())  # of which there is no length to tell
    return response


def _is_still_accepted(service: Service, given: Authorization | None) -> bool:
    tokens = service.settings.api_tokens()
    return not tokens or (given is not None and given.token in tokens)


def _wants_status() -> bool:
    try:
        return "events" not in _STREAM_QUERY.load(request.args)
    except ValidationError as error:
        given = request.args["events"][:100]
        raise BadRequest(f"events is {given!r}: {error.messages_dict['events'][0]}") from error


@blueprint.get("/status")
def status() -> Response:
    """How following goes."""
    return _json(_STATUS.dump(current_service().consumer.status))


def _json(answer: Any) -> Response:
    """Answer with JSON that is indented for eyes."""
    return Response(json.dumps(answer, indent=2) + "\n", mimetype="application/json")


@blueprint.get("/metrics")
def metrics() -> Response:
    """What Prometheus is told."""
    text, content_type = current_service().metrics.expose(request.headers.get("Accept", ""))
    return Response(text, content_type=content_type)


@blueprint.get("/healthz")
def healthz() -> dict[str, str]:
    """Whether the process and its consumer thread are alive, broker or not."""
    consumer = current_service().consumer
    if not consumer.is_alive():
        abort(503, "the consumer thread is not running")
    silence = consumer.seconds_since_loop()
    if silence > LONGEST_LOOP_SECONDS:
        abort(503, f"the consumer thread has made no loop for {silence:.0f} s")
    return {"status": "alive"}


@blueprint.get("/readyz")
def readyz() -> dict[str, Any]:
    """Whether the state is known, and which of it cannot be read now, if so."""
    service = current_service()
    view = service.state.view()
    _require_fresh(service, view.require_snapshot())
    status = service.consumer.status
    answer: dict[str, Any] = {"status": "ready"}
    if status.unreadable:
        answer["without"] = {str(partition): why for partition, why in status.unreadable.items()}
    if status.cached:
        answer["cached"] = (
            f"the state is from the disk, where it was current {status.stale_seconds:.0f} s ago: "
            f"{view.reason}"
        )
    return answer


def _require_fresh(service: Service, snapshot: Snapshot) -> None:
    settings, status = service.settings, service.consumer.status
    if service.model:
        service.model.require_model(snapshot)
    longest = settings.max_stale_seconds
    if longest is not None and status.stale_seconds > longest:
        why = f": {status.last_error.error}" if status.last_error else ""
        raise StateUnknown(
            f"the end of {settings.topic} was confirmed {status.stale_seconds:.0f} s ago, and "
            f"STATE_MAX_STALE_SECONDS is {longest}{why}"
        )
