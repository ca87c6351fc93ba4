"""What the listeners of the secure broker speak, and its settings for them."""

from __future__ import annotations

from pathlib import Path

from dev import apache_kafka
from tests.support import token_server

# what each speaks; MUTUAL asks for a certificate, WRONG_HOST shows that of another host, and RENEWED
# one of another authority after `renew`; GSSAPI is there beside a Kerberos only
LISTENERS = {
    "PLAINTEXT": "PLAINTEXT",
    "CONTROLLER": "PLAINTEXT",
    "SSL": "SSL",
    "MUTUAL": "SSL",
    "WRONG_HOST": "SSL",
    "RENEWED": "SSL",
    "SASL_PLAINTEXT": "SASL_PLAINTEXT",
    "SASL_SSL": "SASL_SSL",
    "ONLY_PLAIN": "SASL_SSL",
    "OAUTH": "SASL_SSL",
    "OAUTH_UNSECURED": "SASL_PLAINTEXT",
    "REAUTH": "SASL_SSL",
    "GSSAPI": "SASL_SSL",
}
PASSWORDS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
# OAUTH_UNSECURED takes tokens without a signature; on REAUTH sessions end
MECHANISMS = {
    "SASL_PLAINTEXT": PASSWORDS,
    "SASL_SSL": PASSWORDS,
    "ONLY_PLAIN": ("PLAIN",),
    "OAUTH": ("OAUTHBEARER",),
    "OAUTH_UNSECURED": ("OAUTHBEARER",),
    "REAUTH": (*PASSWORDS, "OAUTHBEARER"),
}
SESSION_SECONDS = 5
RENEWED_KEYSTORE = "listener.name.renewed.ssl.keystore.location"
# with what configuration files and JAAS might take for their own
USERS = {"alice": "s3cret of=alice; 100%", "bob": "s3cret of bob"}


def properties(folder: Path, jwks_url: str) -> dict[str, str]:
    protocols = ",".join(f"{name}:{protocol}" for name, protocol in LISTENERS.items())
    properties = {
        "listener.security.protocol.map": protocols,
        "inter.broker.listener.name": "PLAINTEXT",
        # of each listener, and each has certificates, users and keys of its own to read
        "num.network.threads": "1",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer"
        if apache_kafka.is_since(*apache_kafka.KRAFT_SINCE)
        else "kafka.security.authorizer.AclAuthorizer",
        "super.users": "User:ANONYMOUS",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": f"{folder}/server.pem",
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": f"{folder}/ca.pem",
        "ssl.principal.mapping.rules": "RULE:^.*CN=([^,]+).*$/$1/,DEFAULT",
        "listener.name.mutual.ssl.client.auth": "required",
        "listener.name.wrong_host.ssl.keystore.type": "PEM",
        "listener.name.wrong_host.ssl.keystore.location": f"{folder}/elsewhere.pem",
        "listener.name.renewed.ssl.keystore.type": "PEM",
        RENEWED_KEYSTORE: f"{folder}/renewed.pem",
    }
    for listener, mechanisms in MECHANISMS.items():
        prefix = f"listener.name.{listener.lower()}"
        properties[f"{prefix}.sasl.enabled.mechanisms"] = ",".join(mechanisms)
        for mechanism in mechanisms:
            of_mechanism = f"{prefix}.{mechanism.lower()}"
            properties[f"{of_mechanism}.sasl.jaas.config"] = _login(mechanism)
            if listener == "REAUTH":
                properties[f"{of_mechanism}.connections.max.reauth.ms"] = f"{SESSION_SECONDS}000"
        if "OAUTHBEARER" in mechanisms:
            properties |= {
                f"{prefix}.oauthbearer.{name}": value
                for name, value in _token_checks(listener, jwks_url).items()
            }
    return properties


def _login(mechanism: str) -> str:
    users = "".join(f' user_{user}="{password}"' for user, password in USERS.items())
    module, options = {
        "PLAIN": ("plain.Plain", users),
        "SCRAM-SHA-256": ("scram.Scram", ""),
        "SCRAM-SHA-512": ("scram.Scram", ""),
        "OAUTHBEARER": ("oauthbearer.OAuthBearer", ""),
    }[mechanism]
    return f"org.apache.kafka.common.security.{module}LoginModule required{options};"


def _token_checks(listener: str, jwks_url: str) -> dict[str, str]:
    package = "org.apache.kafka.common.security.oauthbearer"
    handler = "sasl.server.callback.handler.class"
    if listener == "OAUTH_UNSECURED":
        unsecured = "internals.unsecured.OAuthBearerUnsecuredValidatorCallbackHandler"
        return {handler: f"{package}.{unsecured}"}
    return {
        handler: f"{package}.OAuthBearerValidatorCallbackHandler",
        "sasl.oauthbearer.jwks.endpoint.url": jwks_url,
        "sasl.oauthbearer.jwks.endpoint.refresh.ms": "500",
        "sasl.oauthbearer.expected.issuer": token_server.ISSUER,
        "sasl.oauthbearer.expected.audience": token_server.AUDIENCE,
        "sasl.oauthbearer.clock.skew.seconds": "0",
    }
