"""Find out what keeps a broker from being reached, before the client is asked to.

The clients say of an absent broker, an unknown certificate and a wrong password alike that there
is no broker, and say it in dozens of log lines a minute; a wrong password they try four to ten
times. This says which, and costs one short connection.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from app.settings.security_checks import OAUTHBEARER, PASSWORD_MECHANISMS
from app.topic_log.errors import Refused, Unreachable
from app.topic_log.handshake import (
    ANSWER_SECONDS,
    API_VERSIONS,
    OtherProtocol,
    ask,
    ask_for_sasl,
    connected,
    no_exchange,
    talk,
)
from app.topic_log.installed import adapter
from app.topic_log.sign_in import discard_credentials, new_exchange, require_credentials
from app.topic_log.tokens import do_nothing

if TYPE_CHECKING:
    from app.settings import Settings

log = logging.getLogger(__name__)

# before the next one is asked too
HEAD_START_SECONDS = 0.7
# for an answer, and to find out why it is none
OUTCOME_SECONDS = 2 * ANSWER_SECONDS
# between two calls of who waits for an answer
STEP_SECONDS = 0.05
# by OpenSSL's X509_V_ERR_…: an issuer that is not known, and the name of another host
VERIFIED_BY = dict.fromkeys([18, 19, 20, 21], "KAFKA_SSL_CAFILE")
VERIFIED_BY |= dict.fromkeys([62, 64], "KAFKA_SSL_CHECK_HOSTNAME")

# in the name of a TLS alert (RFC 8446, 6.2); the last one is what TLS 1.2 says of a lack
OF_CERTIFICATES = "CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED", "HANDSHAKE_FAILURE"


REFUSED: tuple[type[Exception], ...] = (*adapter.NO_START, *adapter.CLOSED_AT_ONCE)

Outcome = tuple[str, Unreachable | None]
"""A server, and what is wrong with it; None if nothing is."""


@contextlib.contextmanager
def reaching(
    settings: Settings, while_unanswered: Callable[[], None] = do_nothing
) -> Iterator[str]:
    """Open a client in the block; gives the host:port that it is to begin with. Of several a
    client tries one after the other, and waits for those that are silent.

    Args:
        while_unanswered: called now and then until a server has answered; may raise to end it.

    Raises:
        Unreachable: there is no broker to be talked to.
        Refused: there is, and it does not let this client in.
        OSError: a file of certificates or keys can no longer be read.
    """
    try:
        server = _first_that_answers(settings, while_unanswered)
    except Refused:
        if not discard_credentials(settings.security):
            raise
        server = _first_that_answers(settings, while_unanswered)
    try:
        yield server
    except REFUSED as error:
        _first_that_answers(settings, while_unanswered)  # or it has gone since then
        raise Unreachable(f"{server} answers, and then no more: {error}") from error


def silent_brokers(settings: Settings, cluster: Any) -> str | None:
    """Name the brokers that do not answer at the addresses that the cluster says they have; None
    if all do.

    Args:
        cluster: a client's metadata.
    """
    brokers = {f"{broker.host}:{broker.port}": broker for broker in cluster.brokers()}
    told = [
        f"{does_not_answer_at(brokers[server])}: {trouble}"
        for server, trouble in ask_each(settings, [*brokers], head_start=0)
        if trouble
    ]
    return "; ".join(told) or None


def does_not_answer_at(broker: Any) -> str:
    """Say that a broker does not answer at the address that it advertises."""
    return (
        f"the cluster says that its broker {adapter.broker_number(broker)} is at {broker.host}:{broker.port} "
        "(advertised.listeners), which does not answer from here"
    )


def _first_that_answers(settings: Settings, while_unanswered: Callable[[], None]) -> str:
    require_credentials(settings, while_unanswered)
    servers = settings.bootstrap_servers.split(",")
    troubles = {}
    for server, trouble in ask_each(
        settings, servers, HEAD_START_SECONDS, while_unanswered, signs_in=True
    ):
        if isinstance(trouble, Refused):
            raise trouble
        if trouble is None:
            for other in servers:
                if other != server:
                    _name_if_silent(other, settings)
            return server
        troubles[server] = trouble
    told = "; ".join(f"{server}: {troubles[server]}" for server in servers)
    raise Unreachable(f"no broker can be reached: {told}")


@functools.cache
def _name_if_silent(server: str, settings: Settings) -> None:
    """Log it once: others answer, so that nothing else would tell of it."""

    context = _tls_context(settings)

    def ask() -> None:
        trouble = _trouble_with(server, settings, context, signs_in=False)
        if trouble:
            log.warning("A bootstrap server does not answer, others do: %s: %s", server, trouble)

    threading.Thread(target=ask, name="bootstrap server", daemon=True).start()


def ask_each(
    settings: Settings,
    servers: Sequence[str],
    head_start: float,
    while_waiting: Callable[[], None] = do_nothing,
    *,
    signs_in: bool = False,
) -> Iterator[Outcome]:
    """Ask servers one after the other, a slow one without holding up the next. Gives each as soon
    as it is known what is wrong with it; None if nothing is.

    Args:
        head_start: seconds, before the next one is asked too.
        while_waiting: called now and then; may raise to end it.
        signs_in: whether they are also asked to let this client in; else all before that.
    """
    context = _tls_context(settings)
    outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()

    def ask(server: str) -> None:
        outcomes.put((server, _trouble_with(server, settings, context, signs_in)))

    to_ask, asked = [*servers], set[str]()
    deadline = time.monotonic()
    while to_ask or asked:
        if to_ask:
            server = to_ask.pop(0)
            asked.add(server)
            threading.Thread(target=ask, args=[server], name="connectivity", daemon=True).start()
            deadline = time.monotonic() + OUTCOME_SECONDS
        wait = head_start if to_ask else max(deadline - time.monotonic(), 0)
        try:
            server, trouble = _next_outcome(outcomes, wait, while_waiting)
        except queue.Empty:
            if to_ask:
                continue
            # in the middle of its resolver, for example
            silent = Unreachable(f"no answer within {OUTCOME_SECONDS:g} s")
            yield from ((server, silent) for server in asked)
            return
        asked.remove(server)
        yield server, trouble


def _next_outcome(
    outcomes: queue.SimpleQueue[Outcome], seconds: float, while_waiting: Callable[[], None]
) -> Outcome:
    """
    Raises:
        queue.Empty: there is none after so many seconds.
    """
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > STEP_SECONDS:
        with contextlib.suppress(queue.Empty):
            return outcomes.get(timeout=STEP_SECONDS)
        while_waiting()
    return outcomes.get(timeout=max(left, 0))


def _tls_context(settings: Settings) -> ssl.SSLContext | None:
    return settings.security.tls_context() if settings.security.uses_tls else None


def _trouble_with(
    server: str, settings: Settings, context: ssl.SSLContext | None, signs_in: bool
) -> Unreachable | None:
    """Why a server does not answer as Kafka, or refuses this client; None if it does neither."""
    security = settings.security
    begin = functools.partial(new_exchange, security) if signs_in else no_exchange
    try:
        talk(server, context, security.sasl_mechanism, begin)
    except Refused as error:
        return Refused(
            f"{server} answers, and then refuses {security.who}: {_why_refused(settings, error)}"
        )
    except Unreachable as error:
        return error
    except (OSError, ValueError, OtherProtocol) as error:
        return Unreachable(_other_protocol(server, settings, error) or _reason(error, settings))
    return None


def _why_refused(settings: Settings, error: Refused) -> str:
    mechanism = settings.security.sasl_mechanism
    if mechanism in PASSWORD_MECHANISMS:
        return f"the user name or the password is wrong for {mechanism}"
    if mechanism == OAUTHBEARER:
        return f"it does not accept the token ({error})"
    return str(error)


def _other_protocol(server: str, settings: Settings, error: Exception) -> str | None:
    """Say what the listener speaks, if that is why it did not answer what it was asked."""
    has_spoken = isinstance(error, (ConnectionError, ssl.SSLError, OtherProtocol))
    of_certificates = isinstance(error, ssl.SSLCertVerificationError) or _wants_certificate(error)
    if not has_spoken or of_certificates or isinstance(error, ConnectionRefusedError):
        return None
    for with_tls in (settings.security.uses_tls, not settings.security.uses_tls):
        offered = _sasl_mechanisms(server, with_tls)
        if offered is None:
            continue
        faults = []
        if with_tls != settings.security.uses_tls:
            faults.append("it speaks TLS" if with_tls else "it does not speak TLS")
        if bool(offered) != settings.security.uses_sasl:
            wants = f"it wants SASL, and offers {', '.join(offered)}"
            faults.append(wants if offered else "it has no SASL")
        spoken = ("SASL_" if offered else "") + ("SSL" if with_tls else "PLAINTEXT")
        if faults:
            return (
                f"{'; '.join(faults)}: KAFKA_SECURITY_PROTOCOL is {settings.security.protocol}, "
                f"and has to be {spoken}"
            )
    return None


def _sasl_mechanisms(server: str, with_tls: bool) -> list[str] | None:
    """What a listener offers, with TLS or without it; None if it does not answer so."""
    context = None
    if with_tls:
        # nothing is told here, so that it does not matter to whom
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with connected(server, context) as connection:
            ask(connection, API_VERSIONS, version=0)
            return ask_for_sasl(connection, "")[1]
    except ssl.SSLError as error:
        # it speaks TLS, and wants a certificate
        return [] if _wants_certificate(error) else None
    except OSError:
        return None


def _wants_certificate(error: Exception) -> bool:
    """Whether the other side refuses the client's certificate, or that there is none."""
    reason = (error.reason or "") if isinstance(error, ssl.SSLError) else ""
    return "ALERT" in reason and any(word in reason for word in OF_CERTIFICATES)


def _reason(error: Exception, settings: Settings) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        variable = VERIFIED_BY.get(error.verify_code)
        told = f"its certificate is not accepted: {error.verify_message}"
        return f"{told} ({variable})" if variable else told
    if isinstance(error, ssl.SSLError) and _wants_certificate(error):
        if settings.security.ssl_certfile:
            return f"it does not accept the certificate in KAFKA_SSL_CERTFILE ({error.reason})"
        return f"it wants a certificate of its clients (KAFKA_SSL_CERTFILE; {error.reason})"
    if isinstance(error, ssl.SSLError) and "ALERT" in (error.reason or ""):
        return f"it refuses the TLS handshake ({error.reason})"
    if isinstance(error, TimeoutError):
        return f"no answer within {ANSWER_SECONDS:g} s"
    if isinstance(error, socket.gaierror):
        return "its name is not known"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, (ConnectionError, ssl.SSLError)):
        return (
            f"it does not answer as Kafka does (is it Kafka, with {settings.security.protocol} as "
            "KAFKA_SECURITY_PROTOCOL?)"
        )
    return str(error)
