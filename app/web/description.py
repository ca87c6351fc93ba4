"""The service's description of itself: OpenAPI, and a page to read and try it."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import flask_swagger_ui
from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from flask import Blueprint, Response, current_app, jsonify, render_template, send_from_directory
from marshmallow import Schema

from app.service import Service, current_service
from app.web.auth import is_open
from app.web.schemas import (
    HelloSchema,
    HistorySchema,
    ProbeSchema,
    ProblemSchema,
    ReadySchema,
    StateHeaders,
    StateQuery,
    StateSchema,
    StatusSchema,
    StreamHeaders,
    StreamQuery,
)

blueprint = Blueprint("description", __name__)

NAME = "kafka-state"
SWAGGER_UI = Path(flask_swagger_ui.__file__).parent / "dist"

TEXT = {"type": "string"}


def _header(description: str, kind: str = "string") -> dict[str, Any]:
    return {"description": description, "schema": {"type": kind}}


def _json(description: str, schema: type[Schema], **more: Any) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}, **more}


def _problem(description: str, **more: Any) -> dict[str, Any]:
    content = {"application/problem+json": {"schema": ProblemSchema}}
    return {"description": description, "content": content, **more}


TRY_AGAIN = {"Retry-After": _header("seconds", "integer")}
VERSION = {
    "ETag": _header("the version of the state: it names the message"),
    "X-State-Partition": _header("of the message; left out for the initial value", "integer"),
    "X-State-Offset": _header("of the message; left out for the initial value", "integer"),
    "X-State-Stale": _header(
        "for how many seconds the log's end has not been confirmed; left out while it is", "integer"
    ),
}
APPLIED = {"Preference-Applied": _header("the `wait` that was granted")}

# by endpoint; the summary is the view's docstring
OPERATIONS: dict[str, dict[str, Any]] = {
    "views.hello": {
        "responses": {
            200: {
                "description": "by what is accepted",
                "content": {
                    "application/json": {"schema": HelloSchema},
                    "text/html": {"schema": TEXT},
                },
            }
        }
    },
    "views.state": {
        "parameters": [
            {"in": "query", "schema": StateQuery},
            {"in": "header", "schema": StateHeaders},
        ],
        "responses": {
            200: _json(
                "the state",
                StateSchema,
                headers=VERSION
                | APPLIED
                | {"Last-Modified": _header("the timestamp of the message, if it has one")},
            ),
            304: {"description": "the state is the known one", "headers": VERSION | APPLIED},
            400: _problem(
                "a min_offset is not PARTITION:OFFSET, or names a partition that the topic does not "
                "have"
            ),
            503: _problem(
                "there is no state yet, min_offset was not reached in time, or the limit on "
                "waiting requests is reached",
                headers=TRY_AGAIN | APPLIED,
            ),
        },
    },
    "views.history": {
        "responses": {
            200: _json("the newest first; of this worker, since it started", HistorySchema),
            404: _problem("there is none: STATE_HISTORY is 0"),
        }
    },
    "views.stream": {
        "parameters": [
            {"in": "query", "schema": StreamQuery},
            {"in": "header", "schema": StreamHeaders},
        ],
        "responses": {
            200: {
                "description": "an endless stream of `state` events, whose data is the answer of "
                "/state and whose id its ETag, and of `status` events, which say how following "
                "goes: at a change, and once a second at most",
                "content": {"text/event-stream": {"schema": TEXT}},
            },
            400: _problem("events is not a name that there is"),
            503: _problem("the limit on waiting requests is reached", headers=TRY_AGAIN),
        },
    },
    "views.status": {"responses": {200: _json("position, end and lag, counters", StatusSchema)}},
    "views.metrics": {
        "responses": {
            200: {
                "description": "in the text format, or OpenMetrics where that is accepted",
                "content": {
                    "text/plain": {"schema": TEXT},
                    "application/openmetrics-text": {"schema": TEXT},
                },
            }
        }
    },
    "views.healthz": {
        "responses": {
            200: _json("alive", ProbeSchema),
            503: _problem("the thread has ended, or made no loop for a minute"),
        }
    },
    "views.readyz": {
        "responses": {
            200: _json("ready", ReadySchema),
            503: _problem("not yet, and why", headers=TRY_AGAIN),
        }
    },
    "description.openapi": {
        "responses": {
            200: {
                "description": "OpenAPI 3.1",
                "content": {"application/json": {"schema": {"type": "object"}}},
            }
        }
    },
    "description.docs": {
        "responses": {
            200: {"description": "a page for browsers", "content": {"text/html": {"schema": TEXT}}}
        }
    },
}


def describe(service: Service) -> dict[str, Any]:
    """Give the OpenAPI document of the running application."""
    spec = APISpec(
        title=NAME,
        version=version(NAME),
        openapi_version="3.1.0",
        info={"description": "A state as fresh as a Kafka topic."},
        # relative to this document, for a proxy may have taken a prefix away
        servers=[{"url": ".", "description": "this service"}],
        plugins=[MarshmallowPlugin()],
    )
    wants_token = bool(service.settings.api_tokens())
    if wants_token:
        spec.components.security_scheme("token", {"type": "http", "scheme": "bearer"})
    unauthorized = dict.fromkeys(OPERATIONS, _problem("the bearer token is missing or wrong"))
    operations = OPERATIONS
    if service.model:
        unauthorized |= dict.fromkeys(service.model.operations, service.model.unauthorized)
        operations = operations | service.model.operations
    for rule in current_app.url_map.iter_rules():
        if rule.endpoint not in operations:
            continue
        operation = dict(operations[rule.endpoint])
        operation["parameters"] = [
            *operation.get("parameters", []),
            *(
                {"in": "path", "name": name, "required": True, "schema": TEXT}
                for name in sorted(rule.arguments)
            ),
        ]
        of_version = "_of_version" if "version" in rule.arguments else ""
        operation["operationId"] = rule.endpoint.partition(".")[2] + of_version
        operation["summary"] = (current_app.view_functions[rule.endpoint].__doc__ or "").strip()
        if wants_token and not is_open(rule.rule, rule.endpoint):
            operation["security"] = [{"token": []}]
            operation["responses"] = {**operation["responses"], 401: unauthorized[rule.endpoint]}
        method = "post" if "POST" in (rule.methods or ()) else "get"
        spec.path(re.sub("<(.*?)>", r"{\1}", rule.rule), operations={method: operation})
    return spec.to_dict()


@blueprint.get("/openapi.json")
def openapi() -> Response:
    """What this service answers, as OpenAPI."""
    return jsonify(describe(current_service()))


@blueprint.get("/docs")
def docs() -> str:
    """What this service answers, to read and to try."""
    return render_template("docs.html")


@blueprint.get("/docs/<path:name>")
def docs_asset(name: str) -> Response:
    return send_from_directory(SWAGGER_UI, name)
