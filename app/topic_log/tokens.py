"""Access tokens for OAUTHBEARER: where they come from, and when the next one is fetched."""

from __future__ import annotations

import functools
import logging
import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote_plus

from app.settings.dotted_path import not_accepted, resolve
from app.settings.security_checks import MSK_IAM
from app.topic_log.errors import Refused, Unreachable

if TYPE_CHECKING:
    from app.settings.security import SecuritySettings

log = logging.getLogger(__name__)

ACCEPTED = "accepted is the dotted path of a callable that gives a token and when it expires"
# of a token's life, after which the next one is fetched; Kafka's own clients do so too
# (sasl.login.refresh.window.factor)
REFRESH_FACTOR = 0.8
# for the endpoint to be connected to, and between two parts of its answer
ENDPOINT_SECONDS = 5.0
# for a token where there is none that can be used
WAIT_SECONDS = 10.0
# a token that is refused so soon would be refused again
NEW_SECONDS = 2.0
# between two calls of who waits for one
STEP_SECONDS = 0.05
# between two tries while the endpoint is away
RETRY_SECONDS = 5.0
# of a token whose endpoint does not say it, which it need not (RFC 6749, 5.1)
UNTOLD_LIFE_SECONDS = 300.0
# an expiry beyond that is not in seconds
LONGEST_LIFE_SECONDS = 10 * 365 * 86_400
# RFC 6749, 5.2: it is this client that is refused, and the next try would be too
REFUSALS = ("invalid_client", "unauthorized_client", "invalid_scope", "unsupported_grant_type")


def do_nothing() -> None:
    """For one who has nothing else to do while it waits."""


class Token(NamedTuple):
    """
    Attributes:
        expires_at: in seconds since the epoch.
    """

    value: str
    expires_at: float


class NoToken(Exception):
    """There is no token; the text says why, without secrets."""

    def __init__(self, text: str, *, is_refusal: bool = False) -> None:
        super().__init__(text)
        self.is_refusal = is_refusal


class Tokens:
    """One token after the other, each for as long as it is young enough. For any thread.

    The next one is fetched in a thread of its own, so that nobody waits for an endpoint that is
    slow, or away, while there is a token that can still be used.

    `_changed` guards all attributes below it; nothing blocks while holding it.
    """

    def __init__(self, fetch: Callable[[], Token], now: Callable[[], float] = time.time) -> None:
        """
        Args:
            fetch: takes some seconds at most; raises NoToken.
            now: a clock, in seconds since the epoch.
        """
        self._fetch = fetch
        self._now = now
        self._changed = threading.Condition()
        self._token: Token | None = None
        self._fetched_at = 0.0
        self._refresh_at = 0.0
        self._is_fetching = False
        self._failure: NoToken | None = None

    def current(
        self,
        wait_seconds: float = WAIT_SECONDS,
        while_waiting: Callable[[], None] = do_nothing,
    ) -> str:
        """Give a token that has not expired.

        Args:
            while_waiting: called now and then; may raise to end it.

        Raises:
            Refused: the endpoint refuses this client.
            Unreachable: there is none, for another reason.
        """
        deadline = time.monotonic() + wait_seconds
        while True:
            with self._changed:
                self._begin_to_fetch_if_due()
                if self._token and self._is_usable():
                    return self._token.value
                left = deadline - time.monotonic()
                if not self._is_fetching or left <= 0:
                    raise self._error()
                self._changed.wait(min(left, STEP_SECONDS))
            while_waiting()

    def keep_fresh(self) -> None:
        """Have the next one be fetched in time, so that no connection waits for it; to be called
        again and again. Does not wait."""
        with self._changed:
            if self._token:
                self._begin_to_fetch_if_due()

    def discard(self) -> bool:
        """Use the current one no more, for a broker does not accept it: its clock may be ahead, or
        its keys are others by now. False if it is so new that another one is none better."""
        with self._changed:
            if self._token is None or self._now() < self._fetched_at + NEW_SECONDS:
                return False
            self._token, self._refresh_at = None, 0.0
            return True

    def _is_usable(self) -> bool:
        return self._token is not None and self._now() < self._token.expires_at

    def _begin_to_fetch_if_due(self) -> None:
        if self._is_fetching or self._now() < self._refresh_at:
            return
        self._is_fetching, self._failure = True, None
        threading.Thread(target=self._fetch_next, name="token", daemon=True).start()

    def _fetch_next(self) -> None:
        began, token, failure = self._now(), None, None
        try:
            token = self._fetch()
        except NoToken as error:
            failure = error
        except BaseException as error:  # whatever it is, nobody is to wait for it
            failure = NoToken(f"{type(error).__name__} in what gives the token")
            log.exception("A token could not be fetched")
        if failure:
            self._warn_of(failure)
        with self._changed:
            self._is_fetching, self._failure = False, failure
            if token:
                self._token, self._fetched_at = token, began
                self._refresh_at = began + (token.expires_at - began) * REFRESH_FACTOR
            else:
                self._refresh_at = began + RETRY_SECONDS
            self._changed.notify_all()

    def _warn_of(self, failure: NoToken) -> None:
        with self._changed:
            is_usable = self._is_usable()
        if is_usable:  # else who needs one says it
            log.warning(
                "The next token cannot be had yet, the one before still counts: %s", failure
            )

    def _error(self) -> Unreachable:
        if self._failure is None:
            return Unreachable("no token can be had: its endpoint has not answered yet")
        kind = Refused if self._failure.is_refusal else Unreachable
        return kind(f"no token can be had: {self._failure}")


@functools.cache
def tokens_of(security: SecuritySettings) -> Tokens:
    """The tokens of this process, which all its clients share.

    Raises:
        SettingsError: KAFKA_OAUTH_TOKEN_PROVIDER names nothing that can be called.
    """
    return Tokens(functools.partial(_fetched, security, _source(security)))


def _source(security: SecuritySettings) -> Callable[[], Token]:
    if security.oauth_token_provider is None:
        return functools.partial(_from_endpoint, security)
    if security.oauth_token_provider == MSK_IAM:
        return _from_msk_iam
    provide = resolve(
        "KAFKA_OAUTH_TOKEN_PROVIDER",
        security.oauth_token_provider,
        ACCEPTED,
    )
    if not callable(provide):
        told = f"that is a {type(provide).__name__}"
        raise not_accepted(
            "KAFKA_OAUTH_TOKEN_PROVIDER", security.oauth_token_provider, ACCEPTED, told
        )
    return functools.partial(_from_provider, security.oauth_token_provider, provide)


def _fetched(security: SecuritySettings, source: Callable[[], Token]) -> Token:
    token = source()
    security.redactor.add(token.value)
    if token.expires_at <= time.time():
        raise NoToken("the one that was given has expired already")
    return token


def _from_endpoint(security: SecuritySettings) -> Token:
    """Ask by client credentials (RFC 6749, 4.4)."""
    import requests
    from authlib.common.errors import AuthlibBaseError
    from authlib.integrations.requests_client import OAuth2Session

    try:
        # in its header both are encoded once more (RFC 6749, 2.3.1)
        client_id, secret = map(
            quote_plus, (security.oauth_client_id or "", security.client_secret())
        )
        with OAuth2Session(
            client_id,
            secret,
            scope=security.oauth_scope,
            default_timeout=ENDPOINT_SECONDS,
        ) as session:
            given = session.fetch_token(
                security.oauth_token_url, grant_type="client_credentials", allow_redirects=False
            )
        life_seconds = float(given.get("expires_in") or UNTOLD_LIFE_SECONDS)
        return _token(given["access_token"], time.time() + life_seconds)
    except AuthlibBaseError as error:
        is_refusal = error.error in REFUSALS
        told = f"{security.oauth_token_url} answers {error.error}"
        raise NoToken(f"{told} to {security.who}", is_refusal=is_refusal) from None
    except requests.RequestException as error:
        raise NoToken(f"{security.oauth_token_url} {_what_it_does(error)}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        told = f"{security.oauth_token_url} gives none that can be read: {type(error).__name__}"
        raise NoToken(told) from None


def _what_it_does(error: Any) -> str:
    if error.response is not None:
        return f"answers {error.response.status_code}"
    return f"does not answer: {type(error).__name__}"


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
    return Token(value, expires_at_ms / 1000)


def _from_provider(path: str, provide: Callable[[], Any]) -> Token:
    try:
        given = provide()
    except Exception as error:
        log.exception("%s, which is to give tokens, has failed", path)
        raise NoToken(f"{path} has failed: {type(error).__name__}") from None
    try:
        value, expires_at = given
        return _token(value, expires_at)
    except (TypeError, ValueError):
        raise NoToken(
            f"{path} gives no token: accepted are the token, a string, and when it expires, in "
            "seconds since the epoch"
        ) from None


def _token(value: Any, expires_at: Any) -> Token:
    """
    Raises:
        TypeError, ValueError: it is no token.
    """
    if not isinstance(value, str) or not value.isascii() or not value.isprintable() or not value:
        raise ValueError
    if not 0 < float(expires_at) < time.time() + LONGEST_LIFE_SECONDS:
        raise ValueError
    return Token(value, float(expires_at))
