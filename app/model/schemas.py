"""The shapes of messages that name a model, and of the Open Inference Protocol."""

from __future__ import annotations

from typing import Any

from marshmallow import (
    INCLUDE,
    Schema,
    ValidationError,
    fields,
    post_load,
    pre_load,
    validate,
    validates_schema,
)

# they are parts of addresses
NAME = validate.Regexp(
    r"[A-Za-z0-9][A-Za-z0-9._:+-]{0,199}\Z",
    error="accepted are 1 to 200 letters, digits and '._:+-', the first a letter or digit",
)


FAULTS: dict[str, str | list[Any] | dict[Any, Any]] = {
    "required": "missing",
    "invalid": "accepted is a string",
}


class ModelSchema(Schema):
    """The `state` of a message; what else is in it is shown and has no effect."""

    class Meta:
        unknown = INCLUDE

    error_messages = {"type": "no JSON object"}  # noqa: RUF012  # marshmallow's own form

    name = fields.String(required=True, validate=NAME, error_messages=FAULTS)
    version = fields.String(required=True, validate=NAME, error_messages=FAULTS)
    sha256 = fields.String(
        required=True,
        validate=validate.Regexp(r"[0-9a-fA-F]{64}\Z", error="accepted are 64 hexadecimal digits"),
        error_messages=FAULTS,
    )
    uri = fields.String(error_messages=FAULTS)
    data = fields.String(error_messages=FAULTS)

    @pre_load
    def _leave_out_what_is_null(self, data: Any, **kwargs: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return {name: value for name, value in data.items() if value is not None}

    @post_load
    def _normalise(self, data: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return {**data, "sha256": data["sha256"].lower()}

    @validates_schema
    def _require_one_of_both(self, data: dict[str, Any], **kwargs: Any) -> None:
        if ("uri" in data) == ("data" in data):
            raise ValidationError("accepted is one of both", "uri, data")


class ServerSchema(Schema):
    name = fields.String(required=True)
    version = fields.String(required=True)
    extensions = fields.List(fields.String(), required=True)


class LiveSchema(Schema):
    live = fields.Boolean(required=True)


class ServerReadySchema(Schema):
    ready = fields.Boolean(required=True)


class ModelReadySchema(Schema):
    name = fields.String(required=True)
    ready = fields.Boolean(required=True)


class TensorSpecSchema(Schema):
    name = fields.String(required=True)
    datatype = fields.String(required=True)
    shape = fields.List(fields.Integer(), required=True)


class ModelMetadataSchema(Schema):
    name = fields.String(required=True)
    versions = fields.List(fields.String(), required=True)
    platform = fields.String(required=True)
    inputs = fields.List(fields.Nested(TensorSpecSchema), required=True)
    outputs = fields.List(fields.Nested(TensorSpecSchema), required=True)


class TensorSchema(TensorSpecSchema):
    parameters = fields.Dict()
    data = fields.List(fields.Raw())


class OutputSchema(Schema):
    name = fields.String(required=True)
    parameters = fields.Dict()


class InferRequestSchema(Schema):
    id = fields.String()
    parameters = fields.Dict()
    inputs = fields.List(fields.Nested(TensorSchema), required=True)
    outputs = fields.List(fields.Nested(OutputSchema))


class InferResponseSchema(Schema):
    model_name = fields.String(required=True)
    model_version = fields.String(required=True)
    id = fields.String()
    outputs = fields.List(fields.Nested(TensorSchema), required=True)


class ErrorSchema(Schema):
    error = fields.String(required=True)
