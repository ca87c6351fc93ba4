"""Which settings of TLS and SASL go together, and whether the files are what they should be."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from app.settings.environment import fault, kinds_of

if TYPE_CHECKING:
    from app.settings.settings import Settings

SASL_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


def check_security(settings: Settings, given: Collection[str]) -> None:
    """Check the settings of TLS and SASL.

    Args:
        given: the variables that are set.

    Raises:
        ValidationError: one is set that has no effect, is missing, or names a file of no use.
    """
    _require_what_belongs_together(settings, given)
    if settings.uses_tls:  # to load the certificates takes 20 ms each time
        _require_files_of_use(settings)


def _require_what_belongs_together(settings: Settings, given: Collection[str]) -> None:
    protocol = settings.security_protocol
    for attribute, kind in kinds_of(type(settings)).items():
        variable = kind.data_key or ""
        needs = {"sasl": "SASL_", "ssl": "SSL"}.get(attribute.partition("_")[0])
        if needs and variable in given and needs not in protocol:
            raise fault(
                variable,
                f"accepted only where KAFKA_SECURITY_PROTOCOL has {needs}; it is {protocol}",
            )
        if needs == "SASL_" and variable not in given and needs in protocol:
            accepted = (
                f"accepted are {', '.join(SASL_MECHANISMS)}"
                if attribute == "sasl_mechanism"
                else "accepted is that of a user whom the brokers know"
            )
            raise fault(variable, f"{accepted}; KAFKA_SECURITY_PROTOCOL is {protocol} and needs it")
    if settings.ssl_keyfile and not settings.ssl_certfile:
        raise fault("KAFKA_SSL_KEYFILE", "accepted only with KAFKA_SSL_CERTFILE")


def _require_files_of_use(settings: Settings) -> None:
    for variable, load, accepted in (
        ("KAFKA_SSL_CAFILE", settings.trusting_context, "PEM"),
        ("KAFKA_SSL_CERTFILE", settings.tls_context, "PEM, with a key without a password"),
    ):
        try:
            load()
        except OSError as error:
            raise fault(variable, f"accepted is {accepted} ({error})") from error
