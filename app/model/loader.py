"""From a message that names an ONNX model to the model, ready to be asked."""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Any, BinaryIO

import platformdirs
from marshmallow import ValidationError

from app.loading import InvalidMessage, StateMessage
from app.model.address import shown_uri
from app.model.cache import Cache
from app.model.external_data import names_external_data
from app.model.model import Model, cores
from app.model.schemas import ModelSchema
from app.model.settings import ModelSettings
from app.model.source import Source

_SCHEMA = ModelSchema()


class OnnxLoader:
    """Fetches, verifies and loads models. For the consumer thread only.

    Attributes:
        requests_at_once: how many may be asking this machine's models, of all its workers; a
            server who knows it says so before the first message.
    """

    def __init__(self, settings: ModelSettings) -> None:
        self._settings = settings
        self._source = Source(settings.uri_prefixes, settings.max_bytes, settings.fetch_seconds)
        self._cache = Cache(
            settings.cache_dir or platformdirs.user_cache_path("kafka-state"), settings.cache_bytes
        )
        self.requests_at_once = 1

    def __call__(self, message: StateMessage) -> Model:
        given = _fields(message.state)
        if "uri" in given:
            self._source.check(given["uri"])  # also where it is in the cache

        def write(file: BinaryIO) -> str:
            if "uri" in given:
                return self._source.fetch(given["uri"], file, message.checkpoint)
            return _write_inline(given["data"], file, self._settings.max_bytes)

        with self._cache.holding(given["sha256"], write, message.checkpoint) as path:
            if names_external_data(path, message.checkpoint):
                raise InvalidMessage(
                    "external_data", "accepted are models that have all their data in one file"
                )
            shown = {name: value for name, value in given.items() if name != "data"}
            if "uri" in shown:
                shown["uri"] = shown_uri(shown["uri"])
            return Model.load(path, shown, self._threads())

    def _threads(self) -> int:
        """As many for each request that all of them together do not get in each other's way."""
        return self._settings.threads or max(cores() // self.requests_at_once, 1)


def _fields(state: Any) -> dict[str, Any]:
    try:
        given: dict[str, Any] = _SCHEMA.load(state)
    except ValidationError as error:
        at_fault = "; ".join(
            f"{name.replace('_schema', 'state')}: {messages[0]}"
            for name, messages in error.messages_dict.items()
        )
        raise InvalidMessage(
            "schema", f"{at_fault} (accepted is a name, a version, a sha256, and a uri or data)"
        ) from None
    return given


def _write_inline(data: str, file: BinaryIO, most_bytes: int) -> str:
    if len(data) * 3 // 4 > most_bytes + 2:
        raise InvalidMessage("size", f"more than MODEL_MAX_BYTES, {most_bytes}")
    try:
        model = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidMessage("schema", "data: accepted is base64 (RFC 4648, 4)") from None
    file.write(model)
    return hashlib.sha256(model).hexdigest()
