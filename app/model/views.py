"""Inference by the Open Inference Protocol v2 over HTTP, with binary tensors."""

from __future__ import annotations

from dataclasses import asdict
from importlib.metadata import version as version_of
from typing import Any

from flask import Blueprint, Response, request

from app.model import inference
from app.model.datatypes import BadRequest
from app.model.inference import FAILED, asked_model, kept_models, served_model
from app.service import current_service
from app.web.description import NAME
from app.web.errors import RETRY_AFTER_SECONDS
from app.web.views import healthz

blueprint = Blueprint("model", __name__, url_prefix="/v2")


@blueprint.errorhandler(BadRequest)
def _bad_request(error: BadRequest) -> tuple[dict[str, str], int]:
    return {"error": str(error)}, 400


@blueprint.errorhandler(MemoryError)
def _no_memory(error: MemoryError) -> tuple[dict[str, str], int, dict[str, str]]:
    """The server lacks memory for now; the request is not at fault."""
    told = f"there is not enough memory for this at the moment: {error}"
    return {"error": told}, 503, {"Retry-After": str(RETRY_AFTER_SECONDS)}


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
    served_model(current_service())
    return {"ready": True}


@blueprint.get("/models/<name>")
@blueprint.get("/models/<name>/versions/<version>")
def metadata(name: str, version: str | None = None) -> dict[str, Any]:
    """The model's inputs and outputs, and its versions: the one served, and then those kept."""
    service = current_service()
    model, served = asked_model(service, name, version), served_model(service)
    loaded = [served, *kept_models(service, served)]
    return {
        "name": model.name,
        "versions": [other.version for other in loaded if other.name == name],
        "platform": "onnxruntime_onnx",
        "inputs": list(map(asdict, model.inputs)),
        "outputs": list(map(asdict, model.outputs)),
    }


@blueprint.get("/models/<name>/ready")
@blueprint.get("/models/<name>/versions/<version>/ready")
def model_ready(name: str, version: str | None = None) -> dict[str, Any]:
    """Whether this model is the one that is served, or is kept."""
    return {"name": asked_model(current_service(), name, version).name, "ready": True}


@blueprint.post("/models/<name>/infer")
@blueprint.post("/models/<name>/versions/<version>/infer")
def infer(name: str, version: str | None = None) -> Response:
    """What the model computes from the inputs, and the version that did."""
    if FAILED in request.environ:
        raise request.environ.pop(FAILED)
    answer = inference.infer(current_service(), request.environ, name, version)
    response = Response(answer.body, headers=answer.headers)
    response.call_on_close(answer.close)
    return response
