"""What the environment says of models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marshmallow import EXCLUDE, Schema, fields, post_load

from app.settings.environment import SettingsError, read, size, whole_number

MEBIBYTE = 2**20
MOST_BYTES = 2**63 - 1


class _Environment(Schema):
    """Each field is named after the attribute of `ModelSettings` it fills."""

    class Meta:
        unknown = EXCLUDE

    uri_prefixes = fields.String(load_default="", data_key="MODEL_URI_PREFIXES")
    max_bytes = size("MODEL_MAX_BYTES", 1024 * MEBIBYTE, 1, MOST_BYTES)
    fetch_seconds = whole_number("MODEL_FETCH_SECONDS", "seconds", 60, 1, 86_400)
    load_seconds = whole_number("MODEL_LOAD_SECONDS", "seconds", 60, 1, 86_400)
    cache_dir = fields.String(data_key="MODEL_CACHE_DIR")
    cache_bytes = size("MODEL_CACHE_BYTES", 4096 * MEBIBYTE, 0, MOST_BYTES)
    threads = whole_number("MODEL_THREADS", "threads", None, 1, 1024)
    max_request_bytes = size("MODEL_MAX_REQUEST_BYTES", 32 * MEBIBYTE, 1, MOST_BYTES)

    @post_load
    def _settings(self, data: dict[str, Any], **kwargs: Any) -> ModelSettings:
        prefixes = data["uri_prefixes"].split(",") if data["uri_prefixes"] else ()
        data["uri_prefixes"] = tuple(map(str.strip, prefixes))
        if "cache_dir" in data:
            data["cache_dir"] = Path(data["cache_dir"])
        return ModelSettings(**data)


VARIABLES = frozenset(field.data_key or "" for field in _Environment().fields.values())


@dataclass(frozen=True)
class ModelSettings:
    """The settings of `STATE_LOADER=onnx`; the README says what each means."""

    uri_prefixes: tuple[str, ...]
    max_bytes: int
    fetch_seconds: int
    load_seconds: int
    cache_bytes: int
    threads: int | None
    max_request_bytes: int
    cache_dir: Path | None = None

    @classmethod
    def from_environ(cls, environ: Mapping[str, str], is_used: bool) -> ModelSettings | None:
        """Read the variables that begin with `MODEL_`; None where they are not used.

        Raises:
            SettingsError: a value makes no sense, or would have no effect.
        """
        schema = _Environment()
        if is_used:
            settings: ModelSettings = read(schema, environ)
            _require_prefixes(settings.uri_prefixes)
            return settings
        for field in schema.fields.values():
            if environ.get(field.data_key or ""):
                raise SettingsError(
                    f"{field.data_key} is {environ[field.data_key or '']!r}: accepted only with "
                    "STATE_LOADER=onnx"
                )
        return None


def _require_prefixes(prefixes: Iterable[str]) -> None:
    # what it needs is there where models are loaded only
    from app.model.address import prefix_of, require_package

    for prefix in prefixes:
        try:
            require_package(prefix_of(prefix))
        except ValueError as error:
            # not as it was given, for there may be a secret in it
            raise SettingsError(f"MODEL_URI_PREFIXES has {error}") from None
