"""Which settings of TLS and SASL go together, and whether their files are what they should be."""

from __future__ import annotations

from collections.abc import Callable, Collection
from importlib.util import find_spec
from typing import TYPE_CHECKING

from app.settings.environment import fault, kinds_of

if TYPE_CHECKING:
    from app.settings.security import SecuritySettings

PASSWORD_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
OAUTHBEARER = "OAUTHBEARER"
GSSAPI = "GSSAPI"
SASL_MECHANISMS = (*PASSWORD_MECHANISMS, OAUTHBEARER, GSSAPI)
MSK_IAM = "msk-iam"
# by the attribute's first word: what of the protocol's name it has an effect with
PROTOCOLS = {"sasl": "SASL_", "oauth": "SASL_", "ssl": "SSL"}
# what each way to sign in is imported from, and the extra that brings it
TOKEN_URL_PACKAGE = "authlib", "oauth"
MSK_IAM_PACKAGE = "aws_msk_iam_sasl_signer", "msk-iam"
GSSAPI_PACKAGE = "gssapi", "gssapi"


def require_one_form(given: Collection[str], variable: str) -> None:
    """
    Raises:
        ValidationError: a secret is given, and a file of it too.
    """
    if {variable, f"{variable}_FILE"} <= set(given):
        raise fault(f"{variable}_FILE", f"accepted only without {variable}")


def check_security(settings: SecuritySettings, given: Collection[str]) -> None:
    """
    Args:
        given: the variables that are set.

    Raises:
        ValidationError: one is set that has no effect, is missing, or names a file of no use.
    """
    _require_an_effect(settings, given)
    for variable in ("KAFKA_SASL_PASSWORD", "KAFKA_OAUTH_CLIENT_SECRET", "KAFKA_SSL_KEY_PASSWORD"):
        require_one_form(given, variable)
    if settings.uses_sasl:
        _require_what_signs_in(settings, given)
    if settings.ssl_keyfile and not settings.ssl_certfile:
        raise fault("KAFKA_SSL_KEYFILE", "accepted only with KAFKA_SSL_CERTFILE")
    for attribute in ("ssl_key_password", "ssl_key_password_file"):
        if getattr(settings, attribute) and not settings.ssl_certfile:
            raise fault(f"KAFKA_{attribute.upper()}", "accepted only with KAFKA_SSL_CERTFILE")
    _require_files_of_use(settings)


def _require_an_effect(settings: SecuritySettings, given: Collection[str]) -> None:
    mechanism = settings.sasl_mechanism
    for attribute, kind in kinds_of(type(settings)).items():
        variable = kind.data_key or ""
        if variable not in given:
            continue
        family = attribute.partition("_")[0]
        needs = PROTOCOLS.get(family)
        if needs and needs not in settings.protocol:
            raise fault(
                variable,
                f"accepted only where KAFKA_SECURITY_PROTOCOL has {needs}; it is "
                f"{settings.protocol}",
            )
        mechanisms = _mechanisms_of(attribute)
        if needs == "SASL_" and mechanism and mechanism not in mechanisms:
            raise fault(
                variable,
                f"accepted only where KAFKA_SASL_MECHANISM is {' or '.join(mechanisms)}; it is "
                f"{mechanism}",
            )


def _mechanisms_of(attribute: str) -> tuple[str, ...]:
    """Those that a setting has an effect with."""
    if attribute.startswith("oauth"):
        return (OAUTHBEARER,)
    if attribute.startswith("sasl_kerberos"):
        return (GSSAPI,)
    return SASL_MECHANISMS if attribute == "sasl_mechanism" else PASSWORD_MECHANISMS


def _require_what_signs_in(settings: SecuritySettings, given: Collection[str]) -> None:
    mechanism = settings.sasl_mechanism
    if mechanism is None:
        raise fault(
            "KAFKA_SASL_MECHANISM",
            f"accepted are {', '.join(SASL_MECHANISMS)}; KAFKA_SECURITY_PROTOCOL is "
            f"{settings.protocol} and needs it",
        )
    _require_package(settings)
    if mechanism in PASSWORD_MECHANISMS:
        whose = "accepted is that of a user whom the brokers know"
        needed = {"KAFKA_SASL_USERNAME": whose, "KAFKA_SASL_PASSWORD": f"{whose}, or a file of it"}
    elif settings.oauth_token_provider:
        needed = {}
        of_an_endpoint = ("KAFKA_OAUTH_TOKEN_URL", "KAFKA_OAUTH_CLIENT", "KAFKA_OAUTH_SCOPE")
        for variable in sorted(given):
            if variable.startswith(of_an_endpoint):
                raise fault(variable, "accepted only without KAFKA_OAUTH_TOKEN_PROVIDER")
    elif mechanism == OAUTHBEARER:
        needed = {
            "KAFKA_OAUTH_TOKEN_URL": "accepted is the address of a token endpoint; or "
            "KAFKA_OAUTH_TOKEN_PROVIDER",
            "KAFKA_OAUTH_CLIENT_ID": "accepted is that of a client whom KAFKA_OAUTH_TOKEN_URL knows",
            "KAFKA_OAUTH_CLIENT_SECRET": "accepted is that of the client, or a file of it",
        }
    else:
        needed = {}  # Kerberos has files and variables of its own
    for variable, accepted in needed.items():
        if variable not in given and f"{variable}_FILE" not in given:
            raise fault(variable, f"{accepted}; KAFKA_SASL_MECHANISM is {mechanism} and needs it")


def _require_package(settings: SecuritySettings) -> None:
    variable = "KAFKA_SASL_MECHANISM"
    if settings.sasl_mechanism == GSSAPI:
        package, extra = GSSAPI_PACKAGE
    elif settings.oauth_token_provider == MSK_IAM:
        variable, (package, extra) = "KAFKA_OAUTH_TOKEN_PROVIDER", MSK_IAM_PACKAGE
    elif settings.sasl_mechanism == OAUTHBEARER and not settings.oauth_token_provider:
        package, extra = TOKEN_URL_PACKAGE
    else:
        return
    if not find_spec(package):
        raise fault(
            variable,
            f"accepted where {package} is installed: in the clone, uv pip install -c "
            f"constraints.txt '.[{extra}]'",
        )


def _require_files_of_use(settings: SecuritySettings) -> None:
    checks: list[tuple[str, Callable[[], object], str]] = []
    if settings.sasl_password_file:
        checks.append(("KAFKA_SASL_PASSWORD_FILE", settings.password, "a password"))
    if settings.oauth_client_secret_file:
        checks.append(("KAFKA_OAUTH_CLIENT_SECRET_FILE", settings.client_secret, "a secret"))
    if settings.ssl_key_password_file:
        checks.append(("KAFKA_SSL_KEY_PASSWORD_FILE", settings.key_password, "a password"))
    if settings.uses_tls:  # to load the certificates takes 20 ms each time
        checks.append(("KAFKA_SSL_CAFILE", settings.trusting_context, "PEM"))
        checks.append(
            (
                "KAFKA_SSL_CERTFILE",
                settings.tls_context,
                "PEM, with its key; where that is encrypted, with KAFKA_SSL_KEY_PASSWORD",
            )
        )
    for variable, load, accepted in checks:
        try:
            load()
        except (OSError, ValueError) as error:
            raise fault(variable, f"accepted is {accepted} ({error})") from error
