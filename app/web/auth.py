"""Authentication and response headers."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from flask import Flask, Response, request
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import Unauthorized

from app.web.views import PROBES

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

# what a browser asks for before it can be asked for a token; they tell nothing of the state
PAGES = {"views.hello", "description.docs", "description.docs_asset", "static"}

# with a space, so that it is quoted, as RFC 9110 has it (11.5)
REALM = "kafka state"

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


NOT_STORED = ("Cache-Control", "no-store")


def register(app: Flask, tokens: Callable[[], Collection[str]]) -> None:
    """Ask for one of the tokens as a bearer token (RFC 6750) if there are any, and set the headers.

    Args:
        tokens: gives those that are accepted now.
    """
    app.before_request(lambda: _require_one_of(tokens))
    app.after_request(_set_headers)


def has_token(environ: WSGIEnvironment, tokens: Collection[str]) -> bool:
    """Whether a request has one of the tokens, if there are any, as nearly all clients spell it."""
    if not tokens:
        return True
    scheme, _, given = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    return scheme == "Bearer" and _is_one_of(given, tokens)


def _is_one_of(given: str, tokens: Collection[str]) -> bool:
    """Compare with all, so that the time it takes does not tell which is nearest."""
    return sum(hmac.compare_digest(given.encode(), token.encode()) for token in tokens) > 0


def is_open(path: str, endpoint: str | None) -> bool:
    """Whether it is answered without a token."""
    return path in PROBES or endpoint in PAGES


def _require_one_of(accepted: Callable[[], Collection[str]]) -> None:
    if is_open(request.path, request.endpoint):
        return
    tokens = accepted()
    if not tokens:
        return
    given = request.authorization
    if given is None or given.type != "bearer" or given.token is None:
        raise Unauthorized(
            "a bearer token is needed: Authorization: Bearer ...",
            www_authenticate=WWWAuthenticate("bearer", {"realm": REALM}),
        )
    if not _is_one_of(given.token, tokens):
        raise Unauthorized(
            "the bearer token is wrong",
            www_authenticate=WWWAuthenticate("bearer", {"realm": REALM, "error": "invalid_token"}),
        )


def _set_headers(response: Response) -> Response:
    response.headers.extend(HEADERS)
    response.headers.setdefault(*NOT_STORED)
    return response
