"""An OAuth 2 server that gives tokens to the clients it knows, for their secrets."""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_plus

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

Answer = tuple[int, str]

ISSUER = "https://tokens.example"
AUDIENCE = "kafka.example"
# with what is not the same in a form
SECRETS = {"alice": "s3cret of=alice; 100%&+", "bob": "s3cret of bob"}
LIFETIME_SECONDS = 300
FAILS: Answer = (500, "<h1>Internal Server Error</h1>")
REFUSES: Answer = (401, '{"error": "invalid_client", "error_description": "unknown client"}')
# how long one that was given when it was over had lived
LIVED_SECONDS = 60


@dataclass(frozen=True)
class Asked:
    """One that wanted a token.

    Attributes:
        client: its id.
        method: how it shows its secret, "client_secret_basic" or "client_secret_post".
        parameters: the form, without a secret.
    """

    client: str
    method: str
    parameters: Mapping[str, str]


class TokenServer:
    """Grants by client credentials, as RFC 6749 has them; a token's `sub` is its client's id.

    A test changes its attributes while it runs. Its threads share what it was asked and the key,
    and have one lock for them.

    Attributes:
        url: where tokens are asked for.
        secure_url: the same by https; empty where it has no certificate.
        jwks_url: the public key of its signatures.
        secrets: by client id.
        lifetime_seconds: of a token; less than nothing for those that are over when they come.
        tells_lifetime: whether it says `expires_in`.
        fixed_answer: status and body that come in place of tokens.
        hangs: whether no answer comes, until it is False again.
    """

    def __init__(self) -> None:
        self.url = self.secure_url = self.jwks_url = ""
        self.secrets = dict(SECRETS)
        self.lifetime_seconds = LIFETIME_SECONDS
        self.tells_lifetime = True
        self.fixed_answer: Answer | None = None
        self.hangs = False
        self._is_over = threading.Event()
        self._lock = threading.Lock()
        self._asked: list[Asked] = []
        self._keys_asked = 0
        self.rotate_key()

    @property
    def asked(self) -> list[Asked]:
        """Who wanted a token until now, the first first."""
        with self._lock:
            return list(self._asked)

    @property
    def keys_asked(self) -> int:
        """How often somebody wanted to know the public key."""
        with self._lock:
            return self._keys_asked

    def rotate_key(self) -> None:
        """Sign with another key from now on; whoever asks for keys hears of this one only."""
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        with self._lock:
            self._key, self._key_id = key, uuid.uuid4().hex

    def token(self, user: str, seconds: float | None = None, **claims: Any) -> str:
        """A signed one as a client gets it.

        Args:
            seconds: in place of `lifetime_seconds`.
            claims: that differ from those that are right, such as `aud`.
        """
        with self._lock:
            key, key_id = self._key, self._key_id
        lives = self.lifetime_seconds if seconds is None else seconds
        claims = _claims(user, lives) | {"iss": ISSUER, "aud": AUDIENCE} | claims
        return jwt.encode(claims, key, "RS256", {"kid": key_id})

    def close(self) -> None:
        self._is_over.set()

    def __call__(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        return self._answer(Request(environ))(environ, start)

    def _answer(self, request: Request) -> Response:
        if request.path == "/jwks":
            return _json({"keys": [self._public_key()]})
        client, method, secret = _credentials(request)
        form = {name: value for name, value in request.form.items() if name != "client_secret"}
        with self._lock:
            self._asked.append(Asked(client, method, form))
        while self.hangs and not self._is_over.wait(0.02):
            pass
        if self.fixed_answer:
            status, body = self.fixed_answer
            return Response(body, status)
        if request.method != "POST" or not client:
            return _json({"error": "invalid_request"}, HTTPStatus.BAD_REQUEST)
        if form.get("grant_type") != "client_credentials":
            return _json({"error": "unsupported_grant_type"}, HTTPStatus.BAD_REQUEST)
        if self.secrets.get(client) != secret:
            return _json({"error": "invalid_client"}, HTTPStatus.UNAUTHORIZED)
        scope: dict[str, Any] = {"scope": form["scope"]} if "scope" in form else {}
        token = self.token(client, **scope)
        lifetime = {"expires_in": self.lifetime_seconds} if self.tells_lifetime else {}
        return _json({"access_token": token, "token_type": "Bearer", **lifetime, **scope})

    def _public_key(self) -> dict[str, Any]:
        with self._lock:
            self._keys_asked += 1
            key, key_id = self._key.public_key(), self._key_id
        return {
            **RSAAlgorithm.to_jwk(key, as_dict=True),
            "kid": key_id,
            "alg": "RS256",
            "use": "sig",
        }


def unsecured_token(user: str, seconds: float = LIFETIME_SECONDS) -> str:
    """One without a signature, which lives that long."""
    return jwt.encode(_claims(user, seconds), "", "none")


def _claims(user: str, lives: float) -> dict[str, Any]:
    now = int(time.time())
    issued = now if lives > 0 else now + lives - LIVED_SECONDS
    return {"sub": user, "iat": issued, "exp": now + lives}


def _credentials(request: Request) -> tuple[str, str, str]:
    """The client's id, how it shows its secret, and that; encoded twice in a header, as RFC 6749
    wants it in 2.3.1."""
    given = request.authorization
    if given and given.type == "basic":
        client, secret = given.username or "", given.password or ""
        return unquote_plus(client), "client_secret_basic", unquote_plus(secret)
    form = request.form
    return form.get("client_id", ""), "client_secret_post", form.get("client_secret", "")


def _json(content: Mapping[str, Any], status: int = HTTPStatus.OK) -> Response:
    headers = {"Cache-Control": "no-store"}
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Basic"
    return Response(json.dumps(content), status, headers, content_type="application/json")


class _Handler(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:
        pass


@contextlib.contextmanager
def running(tls: ssl.SSLContext | None = None) -> Iterator[TokenServer]:
    """Run it for as long as the block; with `tls` it listens on a second port for https."""
    tokens = TokenServer()
    with contextlib.ExitStack() as doors:
        port = doors.enter_context(_listening(tokens, None))
        tokens.url, tokens.jwks_url = (
            f"http://localhost:{port}/{what}" for what in ("token", "jwks")
        )
        if tls:
            tokens.secure_url = (
                f"https://localhost:{doors.enter_context(_listening(tokens, tls))}/token"
            )
        doors.callback(tokens.close)
        yield tokens


@contextlib.contextmanager
def _listening(tokens: TokenServer, tls: ssl.SSLContext | None) -> Iterator[int]:
    server = make_server(
        "localhost", 0, tokens, threaded=True, request_handler=_Handler, ssl_context=tls
    )
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
