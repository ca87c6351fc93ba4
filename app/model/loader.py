"""From a message that names an ONNX model to the model, ready to be asked."""

from __future__ import annotations

import base64
import hashlib
import logging
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import platformdirs
from marshmallow import ValidationError

from app.message import StateMessage
from app.message_errors import InvalidMessage, RetryableError
from app.model.cache import Cache, Fill, require_checksum
from app.model.model import Limits, Model
from app.model.schemas import ModelSchema
from app.model.source import Source
from app.model.trial import Trials
from app.model.uri import redacted_uri, require_prefixes
from app.model.versions import Versions
from app.settings.files import require_writable
from app.settings.model import ModelSettings
from app.state import RecordId

log = logging.getLogger(__name__)

# after so many a message is invalid; the pauses between them come to some seconds
MOST_WRONG_ANSWERS = 5
MOST_REMEMBERED = 1000

_SCHEMA = ModelSchema()

T = TypeVar("T")


class OnnxLoader:
    """Fetches, verifies and loads models. For the consumer thread only.

    Attributes:
        versions: the models that are loaded.
    """

    def __init__(self, settings: ModelSettings) -> None:
        """
        Raises:
            SettingsError: models cannot come from where they should, or cannot be kept.
        """
        self._settings = settings
        require_prefixes(settings.uri_prefixes)
        self._source = Source(settings.uri_prefixes, settings.max_bytes, settings.fetch_seconds)
        folder = settings.cache_dir or platformdirs.user_cache_path("kafka-state")
        self._cache = Cache(folder, settings.cache_bytes)
        require_writable("MODEL_CACHE_DIR", folder)
        self.versions = Versions(settings.keep_versions)
        self._wrong_answers: dict[RecordId, int] = {}
        self._processes = self._requests_at_once = 1
        self._trials = Trials()

    def share_machine(self, processes: int, requests: int) -> None:
        """Note how many processes of this machine serve, and how many requests each may have at
        once; to be called before the first message."""
        self._processes = processes
        self._requests_at_once = processes * requests
        self._trials.share_memory(processes)

    def runs_at_once(self) -> int:
        """How many requests this process can compute without another of this machine having to
        wait for a core."""
        return max(cores() // (self._limits().threads * self._processes), 1)

    def is_cached(self, message: StateMessage) -> bool:
        """Whether what becomes of `message` is known without fetching it or trying it out."""
        try:
            given = _fields(message.state)
        except InvalidMessage:
            return True
        return self._cache.has(given["sha256"])

    def __call__(self, message: StateMessage) -> Model:
        given = _fields(message.state)
        representation = {name: value for name, value in given.items() if name != "data"}
        seconds = self._settings.fetch_seconds + self._settings.load_seconds
        end = time.monotonic() + seconds

        def checkpoint() -> None:
            message.checkpoint()
            if time.monotonic() > end:
                raise RetryableError("slow", f"in {seconds} s no process has made it ready")

        # also if the model is cached, so that the same messages are refused either way
        if "data" in given:
            fill = _inline(given["data"], given["sha256"], self._settings.max_bytes)
        else:
            representation["uri"] = redacted_uri(given["uri"])
            self._source.check(given["uri"])
            fill = partial(self._fetch, message, given["uri"], given["sha256"], checkpoint)

        if loaded := self.versions.with_checksum(given["sha256"]):
            self._cache.note_use(given["sha256"])
            return loaded.named(representation)

        def check(path: Path) -> None:
            self._with_all_memory(
                lambda: self._trials.require_servable(
                    path, self._limits(), self._settings.load_seconds, checkpoint
                )
            )

        try:
            with self._cache.holding(given["sha256"], fill, check, checkpoint) as path:
                _require_size(path.stat().st_size, self._settings.max_bytes)
                self.versions.make_room()
                return self._with_all_memory(
                    lambda: Model.load(path, representation, self._limits())
                )
        finally:
            self._trials.make_ready()

    def _fetch(
        self,
        message: StateMessage,
        uri: str,
        sha256: str,
        checkpoint: Callable[[], None],
        file: BinaryIO,
    ) -> str:
        """Fetch the model.

        What came may be cut off, or of the object that was there before: it counts against the
        message only after some tries.
        """
        try:
            found = self._source.fetch(uri, file, checkpoint=checkpoint)
            require_checksum(found, sha256)
        except InvalidMessage as error:
            tries = self._wrong_answers.pop(message.record_id, 0) + 1
            if tries == MOST_WRONG_ANSWERS:
                raise
            self._wrong_answers[message.record_id] = tries
            while len(self._wrong_answers) > MOST_REMEMBERED:
                del self._wrong_answers[next(iter(self._wrong_answers))]
            raise RetryableError(
                error.reason, f"{error}; {redacted_uri(uri)} is asked again"
            ) from None
        return found

    def _with_all_memory(self, load: Callable[[], T]) -> T:
        """Do `load`; where memory does not suffice for it, let go what is kept and do it again."""
        try:
            return load()
        except RetryableError as error:
            if error.reason != "memory" or not (let_go := self.versions.let_go()):
                raise
        # out of the `except`, for the error would keep what was loaded in vain
        log.warning("Memory is short for the next model; no longer kept: %s", ", ".join(let_go))
        return load()

    def _limits(self) -> Limits:
        """Share the cores: each request is computed with so many threads that all fit."""
        threads = self._settings.threads or max(cores() // self._requests_at_once, 1)
        return Limits(threads, self._settings.max_request_bytes)


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


def _inline(data: str, sha256: str, most_bytes: int) -> Fill:
    _require_size(len(data) * 3 // 4 - 2, most_bytes)
    try:
        model = base64.b64decode(data, validate=True)
    except ValueError:
        raise InvalidMessage("schema", "data: accepted is base64 (RFC 4648, 4)") from None
    _require_size(len(model), most_bytes)
    require_checksum(hashlib.sha256(model).hexdigest(), sha256)

    def fill(file: BinaryIO) -> str:
        file.write(model)
        return sha256

    return fill


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not everywhere
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _require_size(size: int, most_bytes: int) -> None:
    if size > most_bytes:
        raise InvalidMessage("size", f"more than MODEL_MAX_BYTES, {most_bytes}")
