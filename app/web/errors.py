"""Errors as application/problem+json (RFC 9457)."""

from __future__ import annotations

import json

from flask import Flask, request
from werkzeug.exceptions import HTTPException, ServiceUnavailable
from werkzeug.wrappers import Response

from app.service import current_service
from app.state import StateUnknown
from app.web.limits import LimitExceeded

RETRY_AFTER_SECONDS = 1


def register(app: Flask) -> None:
    app.register_error_handler(HTTPException, _problem)
    app.register_error_handler(StateUnknown, _unavailable)
    app.register_error_handler(LimitExceeded, _unavailable)


def _problem(error: HTTPException) -> Response:
    response = Response.force_type(error.get_response())
    if current_service().model and request.path.startswith("/v2"):
        # the Open Inference Protocol has a shape of its own
        response.data = json.dumps({"error": error.description})
        response.content_type = "application/json"
        return response
    response.data = json.dumps(
        {
            "type": "about:blank",
            "title": error.name,
            "status": error.code,
            "detail": error.description,
        },
        separators=(",", ":"),
    )
    response.content_type = "application/problem+json"
    return response


def _unavailable(reason: StateUnknown | LimitExceeded) -> Response:
    return _problem(ServiceUnavailable(str(reason), retry_after=RETRY_AFTER_SECONDS))
