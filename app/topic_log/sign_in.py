"""Signing in by SASL: with what the clients do, and once before them to know what comes of it."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from app.backoff import refused_backoff_seconds
from app.settings.security_checks import GSSAPI, OAUTHBEARER
from app.topic_log.adapter import SaslExchange
from app.topic_log.errors import TopicLogError, Unreachable
from app.topic_log.installed import adapter
from app.topic_log.tokens import tokens_of

if TYPE_CHECKING:
    from app.settings import Settings
    from app.settings.files import Stamp
    from app.settings.security import SecuritySettings


# how long a client waits for a token; there is one, unless none can be had
TOKEN_SECONDS = 2.0
# how soon one who was refused notices that a secret's file has changed
FILES_SECONDS = 1.0


class Refusals:
    """Counts how often brokers have refused the clients of this process. For any thread; `_lock`
    guards `_count`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0

    @property
    def count(self) -> int:
        with self._lock:
            return self._count

    def note(self) -> None:
        with self._lock:
            self._count += 1


@functools.cache
def refusals_of(security: SecuritySettings) -> Refusals:
    """Those of all clients with these settings."""
    return Refusals()


class _Credentials:
    """What the clients ask for each time they sign in, and tell when it is refused."""

    def __init__(self, security: SecuritySettings) -> None:
        self._security = security

    def note_refusal(self) -> None:
        refusals_of(self._security).note()


class _Password(_Credentials):
    def __call__(self) -> str:
        return self._security.password()


class _TokenProvider(_Credentials, adapter.TokenProvider):  # type: ignore[misc, name-defined]
    def token(self) -> str:
        return tokens_of(self._security).current(TOKEN_SECONDS)

    def extensions(self) -> dict[str, str]:
        return dict(self._security.oauth_extensions)


def sasl_options(security: SecuritySettings) -> dict[str, Any]:
    """What every client of the cluster is told of SASL. Secrets are not in it: a client asks for
    them each time it signs in, so that they may change."""
    options: dict[str, Any] = {"sasl_mechanism": security.sasl_mechanism}
    if security.sasl_mechanism == OAUTHBEARER:
        return options | {"sasl_oauth_token_provider": _TokenProvider(security)}
    if security.sasl_mechanism == GSSAPI:
        return options | {"sasl_kerberos_service_name": security.sasl_kerberos_service_name}
    return options | {
        "sasl_plain_username": security.sasl_username,
        "sasl_plain_password": _Password(security),
    }


def require_credentials(settings: Settings, while_waiting: Callable[[], None]) -> None:
    """
    Args:
        while_waiting: called now and then until there is a token; may raise to end it.

    Raises:
        Unreachable: there is nothing to sign in with now.
        Refused: a token endpoint refuses this client.
    """
    security = settings.security
    if security.uses_tokens:
        tokens_of(security).current(while_waiting=while_waiting)


def discard_credentials(security: SecuritySettings) -> bool:
    """Use no more what was refused; False if there is nothing else to sign in with."""
    return security.uses_tokens and tokens_of(security).discard()


def keep_fresh(security: SecuritySettings) -> None:
    """Renew in time what expires; to be called again and again. Does not wait."""
    if security.uses_tokens:
        tokens_of(security).keep_fresh()


def wait_after_refusal(
    security: SecuritySettings,
    tried_with: Stamp,
    refusals: int,
    wait: Callable[[float], object],
) -> None:
    """Wait before a cluster that has refused this client so many times in a row is asked again;
    less long where a secret's file changes, or following is to end.

    Args:
        tried_with: the files as they were before; one may have changed while it was refused.
        wait: waits so many seconds; gives something true when there is no more need to.
    """
    end = time.monotonic() + refused_backoff_seconds(refusals)
    while not wait(FILES_SECONDS):
        if time.monotonic() > end or security.files_stamp() != tried_with:
            return


def new_exchange(security: SecuritySettings, host: str) -> SaslExchange | None:
    """Begin what a client and a broker say to each other until it has signed in; None without
    SASL, and where only the client itself can say it.

    Raises:
        Unreachable: there is nothing to say: no ticket, no token.
    """
    if not security.uses_sasl:
        return None
    try:
        return adapter.sasl_exchange(host, sasl_options(security))
    except TopicLogError:
        raise
    except Exception as error:  # Kerberos has errors of its own
        raise Unreachable(f"{security.who} cannot sign in: {error}") from error
