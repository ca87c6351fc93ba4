"""Plain reads of the state are answered as Flask answered the same one before, until it changes."""

from __future__ import annotations

import time
import weakref
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from app.state import Snapshot

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from app.service import Service

PATH = "/state"
# of one state; clients ask with few headers in common, and with versions that only some have
MOST_ANSWERS = 16

Asked = tuple[str | None, ...]


class _Answer(NamedTuple):
    # not the snapshot itself, with which a model that is served no more would be kept
    snapshot: weakref.ref[Snapshot]
    tokens: tuple[str, ...]
    status: str
    headers: list[tuple[str, str]]
    body: list[bytes]


class RepeatedReads:
    """A WSGI application around Flask's. For any thread: `_answers` is replaced as a whole."""

    def __init__(self, wsgi_app: WSGIApplication, service: Service) -> None:
        self._wsgi_app = wsgi_app
        self._service = service
        self._answers: dict[Asked, _Answer] = {}

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        began = time.perf_counter()
        asked = _asked(environ)
        if asked is None:
            return self._wsgi_app(environ, start_response)
        snapshot = self._service.state.view().snapshot
        if snapshot is None or self._service.consumer.status.stale_seconds:
            return self._wsgi_app(environ, start_response)
        tokens = self._service.settings.api_tokens()
        answer = self._answers.get(asked)
        # a token that was accepted may not be any more
        if answer is None or answer.snapshot() is not snapshot or answer.tokens != tokens:
            return self._ask_flask(asked, snapshot, tokens, environ, start_response)
        seconds = time.perf_counter() - began
        self._service.metrics.count(PATH, "GET", int(answer.status[:3]), seconds)
        start_response(answer.status, answer.headers)
        return answer.body

    def _ask_flask(
        self,
        asked: Asked,
        snapshot: Snapshot,
        tokens: tuple[str, ...],
        environ: WSGIEnvironment,
        start_response: StartResponse,
    ) -> Iterable[bytes]:
        said: list[Any] = []

        def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
            said[:] = [status, list(headers)]
            return start_response(status, headers, *exc_info)

        answered = self._wsgi_app(environ, start)
        try:
            body = list(answered)
        finally:
            if hasattr(answered, "close"):
                answered.close()
        status, headers = said
        if status[:3] in ("200", "304") and self._service.state.view().snapshot is snapshot:
            kept = {
                key: answer
                for key, answer in self._answers.items()
                if answer.snapshot() is snapshot and answer.tokens == tokens
            }
            if len(kept) < MOST_ANSWERS:
                self._answers = {
                    **kept,
                    asked: _Answer(weakref.ref(snapshot), tokens, status, headers, body),
                }
        return body


def _asked(environ: WSGIEnvironment) -> Asked | None:
    """What the answer to a plain read depends on, beside the state; None for other requests."""
    if (
        environ["PATH_INFO"] != PATH
        or environ["REQUEST_METHOD"] != "GET"
        or environ.get("QUERY_STRING")
        or "HTTP_PREFER" in environ
    ):
        return None
    return environ.get("HTTP_AUTHORIZATION"), environ.get("HTTP_IF_NONE_MATCH")
