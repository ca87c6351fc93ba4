"""Signing in by SASL: with what the clients do, and once before them to know what comes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from app.settings.security_checks import GSSAPI, OAUTHBEARER
from app.topic_log.adapter import SaslExchange
from app.topic_log.errors import TopicLogError, Unreachable
from app.topic_log.installed import adapter
from app.topic_log.tokens import Tokens, tokens_of

if TYPE_CHECKING:
    from app.settings import Settings
    from app.settings.security import SecuritySettings


class _TokenProvider(adapter.TokenProvider):  # type: ignore[misc, name-defined]
    """Gives the clients a token each time they sign in."""

    def __init__(self, tokens: Tokens, extensions: dict[str, str]) -> None:
        self._tokens = tokens
        self._extensions = extensions

    def token(self) -> str:
        return self._tokens.current()

    def extensions(self) -> dict[str, str]:
        return self._extensions


def sasl_options(security: SecuritySettings) -> dict[str, Any]:
    """What every client of the cluster is told of SASL. Secrets are not in it: a client asks for
    them each time it signs in, so that they may change."""
    options: dict[str, Any] = {"sasl_mechanism": security.sasl_mechanism}
    if security.sasl_mechanism == OAUTHBEARER:
        provider = _TokenProvider(tokens_of(security), dict(security.oauth_extensions))
        return options | {"sasl_oauth_token_provider": provider}
    if security.sasl_mechanism == GSSAPI:
        return options | {"sasl_kerberos_service_name": security.sasl_kerberos_service_name}
    return options | {
        "sasl_plain_username": security.sasl_username,
        "sasl_plain_password": security.password,
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
    if security.uses_sasl and security.sasl_mechanism == OAUTHBEARER:
        tokens_of(security).current(while_waiting=while_waiting)


def discard_credentials(security: SecuritySettings) -> bool:
    """Use no more what was refused; False if there is nothing else to sign in with."""
    return security.sasl_mechanism == OAUTHBEARER and tokens_of(security).discard()


def keep_fresh(security: SecuritySettings) -> None:
    """Renew in time what expires; to be called again and again. Does not wait."""
    if security.sasl_mechanism == OAUTHBEARER:
        tokens_of(security).keep_fresh()


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
