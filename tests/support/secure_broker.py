"""An Apache Kafka that encrypts, asks its clients who they are, and lets them do what they may."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trustme
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialAlteration,
    UserScramCredentialUpsertion,
)
from cryptography.hazmat.primitives import serialization

from dev import apache_kafka
from dev.apache_kafka import ApacheKafka
from tests.support.coordinator import await_coordinator
from tests.support.waiting import eventually

# what each speaks; MUTUAL asks for a certificate, WRONG_HOST shows that of another host, and
# ONLY_PLAIN knows no other mechanism
LISTENERS = {
    "PLAINTEXT": "PLAINTEXT",
    "CONTROLLER": "PLAINTEXT",
    "SSL": "SSL",
    "MUTUAL": "SSL",
    "WRONG_HOST": "SSL",
    "SASL_PLAINTEXT": "SASL_PLAINTEXT",
    "SASL_SSL": "SASL_SSL",
    "ONLY_PLAIN": "SASL_SSL",
}
# with what configuration files and JAAS might take for their own
USERS = {"alice": "s3cret of=alice; 100%", "bob": "s3cret of bob"}
SCRAM_ITERATIONS = 4096
WITHIN_SECONDS = 10


@dataclass(frozen=True)
class SecureBroker:
    """A broker that lets nobody do anything before `allow`, but for those without a name.

    These are the clients of its PLAINTEXT, SSL and WRONG_HOST listeners, which may do all.

    Attributes:
        admin: one that may do all.
        ca: PEM file, the authority of the broker's certificates.
        unknown_ca: PEM file, an authority of nothing.
        client_cert: PEM file, a certificate for MUTUAL, where it makes the client `client_user`.
        client_key: PEM file, its key.
        unknown_cert: PEM file, a certificate by `unknown_ca`, which MUTUAL turns away.
        unknown_key: PEM file, its key.
        users: passwords by user, for PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512 alike.
    """

    kafka: ApacheKafka
    admin: AdminClient
    ca: Path
    unknown_ca: Path
    client_cert: Path
    client_key: Path
    unknown_cert: Path
    unknown_key: Path
    users: Mapping[str, str]
    client_user: str = "client"

    def address(self, listener: str) -> str:
        """The host:port of one of LISTENERS."""
        return self.kafka.address_of(listener)

    def allow(self, user: str, resource: str, name: str, *operations: str) -> None:
        """Let the user do this from now on.

        Args:
            resource: "topic", "group" or "cluster".
            name: which one; "kafka-cluster" is the name of the cluster.
            operations: those of AclOperation, such as "read".
        """
        bindings = {
            self._binding(AclBinding, user, resource, name, operation) for operation in operations
        }
        for created in self.admin.create_acls(list(bindings)).values():
            created.result(WITHIN_SECONDS)
        eventually(lambda: bindings <= self._bindings(user, resource, name))

    def forbid(self, user: str, resource: str, name: str) -> None:
        """Take back what it was allowed there."""
        which = self._binding(AclBindingFilter, user, resource, name, "any")
        self.admin.delete_acls([which])[which].result(WITHIN_SECONDS)
        eventually(lambda: not self._bindings(user, resource, name))

    def _bindings(self, user: str, resource: str, name: str) -> set[AclBinding]:
        which = self._binding(AclBindingFilter, user, resource, name, "any")
        return set(self.admin.describe_acls(which).result(WITHIN_SECONDS))

    def _binding(
        self,
        kind: type[AclBinding | AclBindingFilter],
        user: str,
        resource: str,
        name: str,
        operation: str,
    ) -> Any:
        return kind(
            # librdkafka calls the cluster a broker
            ResourceType["BROKER" if resource == "cluster" else resource.upper()],
            name,
            ResourcePatternType.LITERAL,
            f"User:{user}",
            "*",
            AclOperation[operation.upper()],
            AclPermissionType.ALLOW,
        )


@contextlib.contextmanager
def running(overrides: Mapping[str, str] | None = None) -> Iterator[SecureBroker]:
    """Run it for as long as the block.

    Args:
        overrides: server.properties that come on top.

    Raises:
        RuntimeError: it did not come up; the text has the end of its output.
    """
    with tempfile.TemporaryDirectory(prefix="certificates-") as name:
        folder = Path(name)
        ca, unknown_ca = trustme.CA(), trustme.CA()
        ca.cert_pem.write_to_path(folder / "ca.pem")
        unknown_ca.cert_pem.write_to_path(folder / "unknown-ca.pem")
        _write(ca.issue_cert("localhost"), folder / "server")
        _write(ca.issue_cert("elsewhere.example"), folder / "elsewhere")
        for authority, whose in ((ca, "client"), (unknown_ca, "unknown")):
            _write(authority.issue_cert("localhost", common_name="client"), folder / whose)
        listeners = [listener for listener in LISTENERS if listener != "CONTROLLER"]
        properties = _properties(folder) | dict(overrides or {})
        with apache_kafka.running({**apache_kafka.LEFT_ALONE, **properties}, listeners) as kafka:
            broker = SecureBroker(
                kafka,
                AdminClient({"bootstrap.servers": kafka.address}),
                folder / "ca.pem",
                folder / "unknown-ca.pem",
                folder / "client.crt",
                folder / "client.key",
                folder / "unknown.crt",
                folder / "unknown.key",
                USERS,
            )
            _add_scram_users(broker.admin)
            await_coordinator(kafka.address)
            yield broker


def _write(certificate: trustme.LeafCert, path: Path) -> None:
    """Write .crt, .key, and a .pem with both, for Kafka in PKCS#8, the only form it takes."""
    chain = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
    key = serialization.load_pem_private_key(certificate.private_key_pem.bytes(), None)
    pkcs8 = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.with_suffix(".crt").write_bytes(chain)
    path.with_suffix(".key").write_bytes(pkcs8)
    path.with_suffix(".pem").write_bytes(pkcs8 + chain)


def _properties(folder: Path) -> dict[str, str]:
    protocols = ",".join(f"{name}:{protocol}" for name, protocol in LISTENERS.items())
    passwords = " ".join(f'user_{user}="{password}"' for user, password in USERS.items())
    module = "org.apache.kafka.common.security.{}LoginModule required{};"
    properties = {
        "listener.security.protocol.map": protocols,
        "inter.broker.listener.name": "PLAINTEXT",
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
    }
    for listener in ("sasl_plaintext", "sasl_ssl", "only_plain"):
        prefix = f"listener.name.{listener}"
        properties |= {
            f"{prefix}.sasl.enabled.mechanisms": "PLAIN"
            if listener == "only_plain"
            else "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
            f"{prefix}.plain.sasl.jaas.config": module.format("plain.Plain", f" {passwords}"),
            f"{prefix}.scram-sha-256.sasl.jaas.config": module.format("scram.Scram", ""),
            f"{prefix}.scram-sha-512.sasl.jaas.config": module.format("scram.Scram", ""),
        }
    return properties


def _add_scram_users(admin: AdminClient) -> None:
    # one request takes no user twice
    for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):
        info = ScramCredentialInfo(mechanism, SCRAM_ITERATIONS)
        upsertions: list[UserScramCredentialAlteration] = [
            UserScramCredentialUpsertion(user, info, password.encode())
            for user, password in USERS.items()
        ]
        for added in admin.alter_user_scram_credentials(upsertions).values():
            added.result(WITHIN_SECONDS)
