"""The span of a request: until its answer can be sent, with a link to the message it comes from.

By the conventions for HTTP, which are stable: https://opentelemetry.io/docs/specs/semconv/http/
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from opentelemetry.trace import Span, SpanContext, SpanKind, StatusCode, Tracer

from app.tracing.context import parent_of
from app.tracing.interface import NAMES, SERVED, FindRoute

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

METHODS = {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"}
OTHER_METHOD = "_OTHER"
VARIABLES = {name: f"HTTP_{name.upper()}" for name in NAMES}


class Requests:
    """A WSGI application around another. It does not look at bodies: who is slow to read, or reads
    a stream, makes no span longer."""

    def __init__(
        self,
        wsgi_app: WSGIApplication,
        tracer: Callable[[], Tracer],
        find_route: FindRoute,
        untraced: Collection[str],
        of_version: Callable[[str], SpanContext | None],
        of_object: Callable[[object], SpanContext | None],
    ) -> None:
        """
        Args:
            tracer: gives the one of this process.
            of_version: gives the span of the message that a state of this version came from.
            of_object: the same, of an object that is or was served.
        """
        self._wsgi_app = wsgi_app
        self._tracer = tracer
        self._find_route = find_route
        self._untraced = untraced
        self._of_version = of_version
        self._of_object = of_object

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] in self._untraced:
            return self._wsgi_app(environ, start_response)
        span = self._begin(environ)

        def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
            _note_status(span, int(status[:3]))
            _link(span, self._of_version(_etag(headers)))
            return start_response(status, headers, *exc_info)

        try:
            return self._wsgi_app(environ, start)
        except BaseException as error:
            span.set_attribute("error.type", type(error).__qualname__)
            span.set_status(StatusCode.ERROR)
            raise
        finally:
            if served := environ.get(SERVED):
                _link(span, self._of_object(served()))
            span.end()

    def _begin(self, environ: WSGIEnvironment) -> Span:
        method = environ["REQUEST_METHOD"]
        path = environ["PATH_INFO"].encode("latin-1")
        route = self._find_route(method, path.decode(errors="replace"))
        is_known = method in METHODS
        attributes = {
            "http.request.method": method if is_known else OTHER_METHOD,
            "url.scheme": environ["wsgi.url_scheme"],
            # without the query, in which there may be what is not for everybody
            "url.path": quote(environ.get("SCRIPT_NAME", "").encode("latin-1") + path),
            "http.route": route,
            "client.address": environ.get("REMOTE_ADDR"),
            "user_agent.original": environ.get("HTTP_USER_AGENT"),
        }
        name = method if is_known else "HTTP"
        return self._tracer().start_span(
            f"{name} {route}" if route else name,
            parent_of({n: environ[v] for n, v in VARIABLES.items() if v in environ}),
            SpanKind.SERVER,
            {name: value for name, value in attributes.items() if value},
        )


def _note_status(span: Span, status: int) -> None:
    span.set_attribute("http.response.status_code", status)
    if status >= 500:
        span.set_attribute("error.type", str(status))
        span.set_status(StatusCode.ERROR)


def _link(span: Span, message: SpanContext | None) -> None:
    if message:
        span.add_link(message)


def _etag(headers: list[tuple[str, str]]) -> str:
    """A state's version is its ETag."""
    return next((value.strip('"') for name, value in headers if name == "ETag"), "")
