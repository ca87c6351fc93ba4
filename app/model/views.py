"""Inference by the Open Inference Protocol v2 over HTTP, with binary tensors."""

from __future__ import annotations

from dataclasses import asdict
from importlib.metadata import version as version_of
from typing import Any

from flask import Blueprint, Response, request
from werkzeug.exceptions import NotFound, RequestEntityTooLarge

from app.model.datatypes import BadRequest
from app.model.model import Model
from app.model.service import ModelService
from app.model.tensors import JSON_SIZE_HEADER, read_request, write_response
from app.service import current_service
from app.web.description import NAME
from app.web.errors import RETRY_AFTER_SECONDS
from app.web.views import client_connection, healthz

# a run that takes longer than it costs to have another thread answer meanwhile
SLOW_SECONDS = 0.001

blueprint = Blueprint("model", __name__, url_prefix="/v2")


def _service() -> ModelService:
    service = current_service().model
    assert service
    return service


@blueprint.errorhandler(BadRequest)
def _bad_request(error: BadRequest) -> tuple[dict[str, str], int]:
    return {"error": str(error)}, 400


@blueprint.errorhandler(MemoryError)
def _no_memory(error: MemoryError) -> tuple[dict[str, str], int, dict[str, str]]:
    """The server lacks memory for now; the request is not at fault."""
    told = f"there is not enough memory for this at the moment: {error}"
    return {"error": told}, 503, {"Retry-After": str(RETRY_AFTER_SECONDS)}


def _served() -> Model:
    """
    Raises:
        StateUnknown: there is none yet.
    """
    return _service().require_model(current_service().state.read())


def _asked(name: str, version: str | None) -> Model:
    model = _served()
    if name != model.name or version not in (None, model.version):
        wanted = name if version is None else f"{name} {version}"
        raise NotFound(f"the model is {wanted}; served is {model.name} {model.version}")
    return model


@blueprint.get("")
def server() -> dict[str, Any]:
    """What this server is, in the words of the Open Inference Protocol."""
    return {"name": NAME, "version": version_of(NAME), "extensions": ["binary_tensor_data"]}


@blueprint.get("/health/live")
def live() -> dict[str, bool]:
    """Whether the process and its consumer thread are alive, broker or not."""
    healthz()
    return {"live": True}


@blueprint.get("/health/ready")
def ready() -> dict[str, bool]:
    """Whether there is a model."""
    _served()
    return {"ready": True}


@blueprint.get("/models/<name>")
@blueprint.get("/models/<name>/versions/<version>")
def metadata(name: str, version: str | None = None) -> dict[str, Any]:
    """The inputs and outputs of the model."""
    model = _asked(name, version)
    return {
        "name": model.name,
        "versions": [model.version],
        "platform": "onnxruntime_onnx",
        "inputs": list(map(asdict, model.inputs)),
        "outputs": list(map(asdict, model.outputs)),
    }


@blueprint.get("/models/<name>/ready")
@blueprint.get("/models/<name>/versions/<version>/ready")
def model_ready(name: str, version: str | None = None) -> dict[str, Any]:
    """Whether this model is the one that is served."""
    return {"name": _asked(name, version).name, "ready": True}


@blueprint.post("/models/<name>/infer")
@blueprint.post("/models/<name>/versions/<version>/infer")
def infer(name: str, version: str | None = None) -> Response:
    """What the model computes from the inputs, and the version that did."""
    model = _asked(name, version)
    asked = read_request(_body(), _json_size(), model.inputs, model.outputs)
    metrics = _service().metrics
    batch_size = model.batch_size(asked.inputs)
    if batch_size is not None:
        metrics.batch_size.observe(batch_size)
    connection = client_connection()
    if connection and model.run_seconds > SLOW_SECONDS:
        _service().before_wait(connection)
    try:
        with metrics.inference.time():
            computed = model.infer(asked.inputs, asked.outputs)
    except ValueError as error:
        raise BadRequest(f"{model.name} {model.version} cannot compute this: {error}") from error
    head = {"model_name": model.name, "model_version": model.version}
    if asked.id is not None:
        head["id"] = asked.id
    body, json_size = write_response(head, computed, asked.outputs)
    if json_size is None:
        return Response(body, mimetype="application/json")
    return Response(
        body, mimetype="application/octet-stream", headers={JSON_SIZE_HEADER: str(json_size)}
    )


def _body() -> bytes:
    if request.content_encoding not in (None, "identity"):
        raise BadRequest(
            f"Content-Encoding is {request.content_encoding!r}; accepted is a body as it is"
        )
    service = _service()
    most = service.settings.max_request_bytes
    # Werkzeug cuts a chunked body off there without an error: one byte more shows that it did
    request.max_content_length = most + 1
    try:
        with service.body_limit.slot():  # for as long as the client takes to send it
            body = request.get_data(cache=False)
    except service.body_errors as error:
        raise BadRequest(f"the body is no HTTP: {error}") from error
    except RequestEntityTooLarge:
        body = None
    if body is None or len(body) > most:
        raise BadRequest(f"the body is larger than MODEL_MAX_REQUEST_BYTES, {most}")
    if request.content_length not in (None, len(body)):
        raise BadRequest(f"the body ends after {len(body)} of {request.content_length} bytes")
    return body


def _json_size() -> int | None:
    given = request.headers.get(JSON_SIZE_HEADER)
    if given is None:
        return None
    if not given.isascii() or not given.isdigit() or len(given) > 18:
        raise BadRequest(f"{JSON_SIZE_HEADER} is {given[:60]!r}; accepted is a number of bytes")
    return int(given)
