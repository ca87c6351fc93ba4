"""An Apache Kafka that encrypts, asks its clients who they are, and lets them do what they may."""

from __future__ import annotations

import contextlib
import itertools
import socket
import ssl
import tempfile
import uuid
from collections.abc import Collection, Iterator, Mapping
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
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialAlteration,
    UserScramCredentialUpsertion,
)

from dev import apache_kafka
from dev.apache_kafka import ApacheKafka
from tests.support import certificates, token_server
from tests.support.coordinator import await_coordinator
from tests.support.kerberos import Kerberos
from tests.support.secure_listeners import LISTENERS, RENEWED_KEYSTORE, USERS, properties
from tests.support.token_server import TokenServer
from tests.support.topics import admin_of
from tests.support.waiting import eventually

CLIENT_KEY_PASSWORD = "s3cret of the key"
# the least that Kafka takes; each change of passwords has one more, which tells it from those before
SCRAM_ITERATIONS = itertools.count(4096)
WITHIN_SECONDS = 10


@dataclass(frozen=True)
class SecureBroker:
    """A broker that lets nobody do anything before `allow`, but for those without a name.

    These are the clients of its PLAINTEXT, SSL, WRONG_HOST and RENEWED listeners, which may do all.

    Attributes:
        admin: one that may do all.
        authority: that of the broker's certificates, and of those for MUTUAL.
        tokens: gives those for OAUTH and REAUTH.
        ca: PEM file, the authority's certificate.
        unknown_ca: PEM file, an authority of nothing.
        client_cert: PEM file, a certificate for MUTUAL, where it makes the client `client_user`.
        client_key: PEM file, its key.
        client_key_encrypted: PEM file, the same with a password.
        unknown_cert: PEM file, a certificate by `unknown_ca`, which MUTUAL turns away.
        unknown_key: PEM file, its key.
        users: passwords by user, for PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512 alike, as they are at
            the start.
    """

    kafka: ApacheKafka
    admin: AdminClient
    authority: trustme.CA
    tokens: TokenServer
    ca: Path
    unknown_ca: Path
    client_cert: Path
    client_key: Path
    client_key_encrypted: Path
    unknown_cert: Path
    unknown_key: Path
    users: Mapping[str, str]
    client_user: str = "client"
    client_key_password: str = CLIENT_KEY_PASSWORD

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

    def set_password(self, user: str, password: str) -> None:
        """Let the user in by SCRAM with this one only from now on; PLAIN keeps that of the start."""
        set_passwords(self.admin, {user: password})

    def rotate_key(self) -> None:
        """Have tokens be signed with another key; returns when the broker knows that, and no other."""
        self.tokens.rotate_key()
        asked = self.tokens.keys_asked
        # each of the two listeners asks by itself, as often as the other
        eventually(lambda: self.tokens.keys_asked >= asked + 4)

    def renew(self) -> Path:
        """Have RENEWED show a certificate of a new authority; gives that authority's PEM file."""
        path = self.ca.with_name(f"renewed-{uuid.uuid4().hex}")
        authority = trustme.CA()
        certificates.write(_of_renewed(authority), path)
        authority.cert_pem.write_to_path(str(path.with_suffix(".ca")))
        keystore = ConfigEntry(
            RENEWED_KEYSTORE,
            str(path.with_suffix(".pem")),
            incremental_operation=AlterConfigOpType.SET,
        )
        broker = ConfigResource(ConfigResource.Type.BROKER, "1", incremental_configs=[keystore])
        self.admin.incremental_alter_configs([broker])[broker].result(WITHIN_SECONDS)
        eventually(lambda: self._is_trusted(path.with_suffix(".ca"), "RENEWED"))
        return path.with_suffix(".ca")

    def _is_trusted(self, authority: Path, listener: str) -> bool:
        host, _, port = self.address(listener).partition(":")
        trusting = ssl.create_default_context(cafile=authority)
        with socket.create_connection((host, int(port)), WITHIN_SECONDS) as connection:
            try:
                trusting.wrap_socket(connection, server_hostname=host).close()
            except ssl.SSLCertVerificationError:
                return False
        return True

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
def running(
    overrides: Mapping[str, str] | None = None,
    kerberos: Kerberos | None = None,
    listeners: Collection[str] | None = None,
) -> Iterator[SecureBroker]:
    """Run it for as long as the block, and a token server beside it.

    Args:
        overrides: server.properties that come on top.
        kerberos: that of the listener GSSAPI, which is not there without.
        listeners: the names of those that it has, PLAINTEXT among them; all of them if None.

    Raises:
        RuntimeError: it did not come up; the text has the end of its output.
    """
    with contextlib.ExitStack() as started:
        folder = Path(started.enter_context(tempfile.TemporaryDirectory(prefix="certificates-")))
        ca, unknown_ca = trustme.CA(), trustme.CA()
        ca.cert_pem.write_to_path(folder / "ca.pem")
        unknown_ca.cert_pem.write_to_path(folder / "unknown-ca.pem")
        certificates.write(ca.issue_cert("localhost"), folder / "server")
        certificates.write(ca.issue_cert("elsewhere.example"), folder / "elsewhere")
        certificates.write(_of_renewed(ca), folder / "renewed")
        for authority, whose in ((ca, "client"), (unknown_ca, "unknown")):
            certificate = authority.issue_cert("localhost", common_name="client")
            certificates.write(certificate, folder / whose, CLIENT_KEY_PASSWORD)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(folder / "server.pem")
        tokens = started.enter_context(token_server.running(tls))
        # since Kafka 4.0 it asks nobody else
        jvm = {"org.apache.kafka.sasl.oauthbearer.allowed.urls": tokens.jwks_url}
        if kerberos:
            jvm["java.security.krb5.conf"] = str(kerberos.config)
        kafka = started.enter_context(
            apache_kafka.running(
                {
                    **apache_kafka.LEFT_ALONE,
                    **properties(folder, tokens.jwks_url),
                    **(kerberos.listener if kerberos else {}),
                    **(overrides or {}),
                },
                listeners or LISTENERS.keys() - {"CONTROLLER", *(() if kerberos else ("GSSAPI",))},
                jvm=jvm,
            )
        )
        broker = SecureBroker(
            kafka,
            admin_of(kafka.address),
            ca,
            tokens,
            folder / "ca.pem",
            folder / "unknown-ca.pem",
            folder / "client.crt",
            folder / "client.key",
            folder / "client.key.encrypted",
            folder / "unknown.crt",
            folder / "unknown.key",
            USERS,
        )
        set_passwords(broker.admin, USERS)
        await_coordinator(kafka.address)
        yield broker


def _of_renewed(authority: trustme.CA) -> trustme.LeafCert:
    # Kafka takes another certificate while it runs only if the name in it stays
    return authority.issue_cert("localhost", organization_unit_name="renewed")


def set_passwords(admin: AdminClient, passwords: Mapping[str, str]) -> None:
    """Let users in by SCRAM with these only; returns when the broker knows that."""
    iterations = next(SCRAM_ITERATIONS)
    # one request takes no user twice
    for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):
        info = ScramCredentialInfo(mechanism, iterations)
        upsertions: list[UserScramCredentialAlteration] = [
            UserScramCredentialUpsertion(user, info, password.encode())
            for user, password in passwords.items()
        ]
        for added in admin.alter_user_scram_credentials(upsertions).values():
            added.result(WITHIN_SECONDS)

    def known() -> bool:
        described = admin.describe_user_scram_credentials(list(passwords))
        assert isinstance(described, dict)
        return all(
            {info.iterations for info in future.result(WITHIN_SECONDS).scram_credential_infos}
            == {iterations}
            for future in described.values()
        )

    eventually(known)
