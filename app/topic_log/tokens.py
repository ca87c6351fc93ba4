"""Access tokens for OAUTHBEARER: when the next one is fetched, and who waits for it."""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from app.topic_log.errors import Refused, Unreachable
from app.topic_log.token_sources import NoToken, Token, place_of, source_of

if TYPE_CHECKING:
    from app.settings.security import SecuritySettings

log = logging.getLogger(__name__)

# of a token's life, after which the next one is fetched; Kafka's own clients do so too
# (sasl.login.refresh.window.factor)
REFRESH_FACTOR = 0.8
# for a token where there is none that can be used
WAIT_SECONDS = 10.0
# a token that is refused so soon would be refused again
NEW_SECONDS = 2.0
# between two calls of who waits for one
STEP_SECONDS = 0.05
# between two tries while none can be had
RETRY_SECONDS = 5.0
# a fetch that takes longer hangs, and another one is begun beside it; no more than so many
LONGEST_FETCH_SECONDS = 60.0
MOST_FETCHES = 3


def do_nothing() -> None:
    """For one who has nothing else to do while it waits."""


class Tokens:
    """One token after the other, each for as long as it is young enough. For any thread.

    The next one is fetched in a thread of its own, so that nobody waits for an endpoint that is
    slow, or away, while there is a token that can still be used.

    `_changed` guards all attributes below it; nothing blocks while holding it.
    """

    def __init__(
        self, source: str, fetch: Callable[[], Token], now: Callable[[], float] = time.monotonic
    ) -> None:
        """
        Args:
            source: where they come from, for the texts of errors.
            fetch: takes some seconds; raises NoToken.
            now: a clock that never goes back, in seconds.
        """
        self._source = source
        self._fetch = fetch
        self._now = now
        self._changed = threading.Condition()
        self._token = ""
        self._fetched_at = self._expires_at = self._refresh_at = float("-inf")
        self._fetching_since: float | None = None
        self._fetches = 0
        self._failure: NoToken | None = None
        self._told = ""

    def current(
        self,
        wait_seconds: float = WAIT_SECONDS,
        while_waiting: Callable[[], None] = do_nothing,
    ) -> str:
        """Give a token that has not expired.

        Args:
            while_waiting: called now and then; may raise to end it.

        Raises:
            Refused: this client is refused one.
            Unreachable: there is none, for another reason.
        """
        deadline = time.monotonic() + wait_seconds
        while True:
            with self._changed:
                self._begin_to_fetch_if_due()
                if self._is_usable():
                    return self._token
                left = deadline - time.monotonic()
                if self._fetching_since is None or left <= 0:
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
            if not self._token or self._now() < self._fetched_at + NEW_SECONDS:
                return False
            self._token, self._refresh_at = "", float("-inf")
            return True

    def _is_usable(self) -> bool:
        return bool(self._token) and self._now() < self._expires_at

    def _begin_to_fetch_if_due(self) -> None:
        now = self._now()
        if now < self._refresh_at:
            return
        if self._fetching_since is not None:
            hangs = now >= self._fetching_since + LONGEST_FETCH_SECONDS
            if not hangs or self._fetches >= MOST_FETCHES:
                return
        self._fetching_since, self._failure = now, None
        self._fetches += 1
        threading.Thread(target=self._fetch_next, args=[now], name="token", daemon=True).start()

    def _fetch_next(self, began: float) -> None:
        token, failure = None, None
        try:
            token = self._fetch()
        except NoToken as error:
            failure = error
        except BaseException as error:  # noqa: BLE001  # nobody is to wait for it, whatever it is
            failure = NoToken(
                f"{self._source} has failed: {type(error).__name__} {place_of(error)}"
            )
        if failure:
            self._warn_of(failure)
        with self._changed:
            self._fetches -= 1
            if self._fetching_since == began:
                self._fetching_since, self._failure = None, failure
                self._refresh_at = self._now() + RETRY_SECONDS
            if token:
                self._token, self._fetched_at, self._told = token.value, began, ""
                self._expires_at = began + token.life_seconds
                self._refresh_at = began + token.life_seconds * REFRESH_FACTOR
            self._changed.notify_all()

    def _warn_of(self, failure: NoToken) -> None:
        with self._changed:
            # else who needs one says it
            is_news = self._is_usable() and str(failure) != self._told
            self._told = str(failure)
        if is_news:
            log.warning(
                "The next token cannot be had yet, the one before still counts: %s", failure
            )

    def _error(self) -> Unreachable:
        if self._failure is None:
            return Unreachable(f"no token can be had: {self._source} has not answered yet")
        kind = Refused if self._failure.is_refusal else Unreachable
        return kind(f"no token can be had: {self._failure}")


@functools.cache
def tokens_of(security: SecuritySettings) -> Tokens:
    """The tokens of this process, which all its clients share.

    Raises:
        SettingsError: KAFKA_OAUTH_TOKEN_PROVIDER names nothing that can be called.
        Exception: whatever importing it raises.
    """
    name, source = source_of(security)

    def fetch() -> Token:
        token = source()
        security.redactor.add(token.value, is_passing=True)
        return token

    return Tokens(name, fetch)
