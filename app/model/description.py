"""The OpenAPI description of inference."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema

from app.model.schemas import (
    ErrorSchema,
    InferRequestSchema,
    InferResponseSchema,
    LiveSchema,
    ModelMetadataSchema,
    ModelReadySchema,
    ServerReadySchema,
    ServerSchema,
)
from app.model.tensors import JSON_SIZE_HEADER

BINARY = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
JSON_SIZE_PARAMETER = {
    "in": "header",
    "name": JSON_SIZE_HEADER,
    "schema": {"type": "integer", "minimum": 0},
    "description": "The size of the JSON, where the inputs' binary data follows it.",
}


def _json(description: str, schema: type[Schema], **content: Any) -> dict[str, Any]:
    content = {"application/json": {"schema": schema}, **content}
    return {"description": description, "content": content}


UNAUTHORIZED = _json("the bearer token is missing or wrong", ErrorSchema)
NOT_SERVED = {
    404: _json("the model, or its version, is neither served nor kept", ErrorSchema),
    503: _json("there is no model yet, or no room for the request, and why", ErrorSchema),
}

# by endpoint; the summary is the view's docstring
OPERATIONS: dict[str, dict[str, Any]] = {
    "model.server": {"responses": {200: _json("name, version, extensions", ServerSchema)}},
    "model.live": {
        "responses": {
            200: _json("alive", LiveSchema),
            503: _json("the thread has ended, or made no loop for a minute", ErrorSchema),
        }
    },
    "model.ready": {
        "responses": {200: _json("there is one", ServerReadySchema), 503: NOT_SERVED[503]}
    },
    "model.metadata": {
        "responses": {200: _json("inputs and outputs", ModelMetadataSchema), **NOT_SERVED}
    },
    "model.model_ready": {"responses": {200: _json("it is", ModelReadySchema), **NOT_SERVED}},
    "model.infer": {
        "parameters": [JSON_SIZE_PARAMETER],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": InferRequestSchema}, **BINARY},
        },
        "responses": {
            200: _json(
                "the outputs, as binary data where that is asked for", InferResponseSchema, **BINARY
            ),
            400: _json("what does not fit the model, or is too large", ErrorSchema),
            **NOT_SERVED,
            504: _json("the model takes too long", ErrorSchema),
        },
    },
}
