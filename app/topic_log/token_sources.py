"""Where access tokens come from: an endpoint, AWS, or somebody else's callable."""

from __future__ import annotations

import functools
import os
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote_plus

from app.settings.dotted_path import not_accepted, resolve
from app.settings.security_checks import MSK_IAM

if TYPE_CHECKING:
    from app.settings.security import SecuritySettings

ACCEPTED = "accepted is the dotted path of a callable that gives a token and when it expires"
# for the endpoint to be connected to, and between two parts of its answer
ENDPOINT_SECONDS = 5.0
# of a token whose endpoint does not say it, which it need not (RFC 6749, 5.1)
UNTOLD_LIFE_SECONDS = 300.0
# an expiry beyond that is not in seconds
LONGEST_LIFE_SECONDS = 10 * 365 * 86_400
# an endpoint that says one of these may give a token later (RFC 6749, 4.1.2.1; RFC 9110, 15)
PASSING_ERRORS = ("server_error", "temporarily_unavailable")
PASSING_STATUSES = (408, 425, 429)
SHOWN_CHARACTERS = 100


class Token(NamedTuple):
    """
    Attributes:
        life_seconds: for how long it counts, from now on.
    """

    value: str
    life_seconds: float


class NoToken(Exception):
    """There is no token; the text says why, without secrets.

    Attributes:
        is_refusal: whether it is this client that gets none, so that the next try is of no use.
    """

    def __init__(self, text: str, *, is_refusal: bool = False) -> None:
        super().__init__(text)
        self.is_refusal = is_refusal


def source_of(security: SecuritySettings) -> tuple[str, Callable[[], Token]]:
    """Give the name of what gives tokens, and the callable that does, which raises NoToken.

    Raises:
        SettingsError: KAFKA_OAUTH_TOKEN_PROVIDER names nothing that can be called.
        Exception: whatever importing it raises.
    """
    path = security.oauth_token_provider
    if path is None:
        return str(security.oauth_token_url), functools.partial(_from_endpoint, security)
    if path == MSK_IAM:
        return "AWS", _from_msk_iam
    provide = resolve("KAFKA_OAUTH_TOKEN_PROVIDER", path, ACCEPTED)
    if not callable(provide):
        told = f"that is a {type(provide).__name__}"
        raise not_accepted("KAFKA_OAUTH_TOKEN_PROVIDER", path, ACCEPTED, told)
    return path, functools.partial(_from_provider, path, provide)


def _from_endpoint(security: SecuritySettings) -> Token:
    """Ask by client credentials (RFC 6749, 4.4)."""
    import requests
    from authlib.integrations.requests_client import OAuth2Session

    url = security.oauth_token_url
    try:
        # in its header both are encoded once more (RFC 6749, 2.3.1)
        client_id, secret = map(
            quote_plus, (security.oauth_client_id or "", security.client_secret())
        )
        with OAuth2Session(
            client_id, secret, scope=security.oauth_scope, default_timeout=ENDPOINT_SECONDS
        ) as session:
            session.register_compliance_hook(
                "access_token_response", functools.partial(_require_success, security)
            )
            given = session.fetch_token(url, grant_type="client_credentials", allow_redirects=False)
        life_seconds = float(given.get("expires_in", UNTOLD_LIFE_SECONDS))
        return _token(given["access_token"], life_seconds)
    except requests.RequestException as error:
        raise NoToken(f"{url} does not answer: {type(error).__name__}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise NoToken(f"{url} gives none that can be read: {type(error).__name__}") from None


def _require_success(security: SecuritySettings, response: Any) -> Any:
    status = response.status_code
    if status == 200:
        return response
    try:
        error = str(response.json()["error"])[:SHOWN_CHARACTERS]
    except (ValueError, KeyError, TypeError):
        error = ""
    told = f"{security.oauth_token_url} answers {' '.join(filter(None, (str(status), error)))}"
    is_passing = error in PASSING_ERRORS or status in PASSING_STATUSES
    raise NoToken(f"{told} to {security.who}", is_refusal=400 <= status < 500 and not is_passing)


def _from_msk_iam() -> Token:
    """Sign in as AWS knows this process: by its environment, its files, or its machine."""
    import boto3
    from aws_msk_iam_sasl_signer import MSKAuthTokenProvider

    # boto3 knows AWS_DEFAULT_REGION and its files, but not what AWS's own machines set
    region = os.environ.get("AWS_REGION") or boto3.session.Session().region_name
    if not region:
        raise NoToken("AWS_REGION is not set: accepted is the region of the cluster")
    try:
        value, expires_at_ms = MSKAuthTokenProvider.generate_auth_token(region)
    except Exception as error:  # noqa: BLE001  # botocore has many, and the signer its own
        raise NoToken(f"AWS gives no credentials: {error}") from None
    return _token(value, expires_at_ms / 1000 - time.time())


def _from_provider(path: str, provide: Callable[[], Any]) -> Token:
    try:
        given = provide()
    except Exception as error:  # noqa: BLE001  # it is somebody else's, and its text may tell a secret
        raise NoToken(f"{path} has failed: {type(error).__name__} {place_of(error)}") from None
    try:
        value, expires_at = given
        return _token(value, float(expires_at) - time.time())
    except (TypeError, ValueError):
        raise NoToken(
            f"{path} gives no token: accepted are the token, a string, and when it expires, in "
            "seconds since the epoch"
        ) from None


def _token(value: Any, life_seconds: float) -> Token:
    """
    Raises:
        TypeError, ValueError: it is no token.
        NoToken: it has expired.
    """
    if not isinstance(value, str) or not value.isascii() or not value.isprintable() or not value:
        raise ValueError
    if not life_seconds < LONGEST_LIFE_SECONDS:
        raise ValueError
    if life_seconds <= 0:
        raise NoToken("the one that was given has expired already")
    return Token(value, life_seconds)


def place_of(error: BaseException) -> str:
    """Say where an error was raised, without its text."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
