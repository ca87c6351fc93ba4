"""A Kerberos of the tests' own: a KDC on loopback, and keys of those that it knows."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dev.ports import free_ports
from tests.support.secure_listeners import SESSION_SECONDS, USERS
from tests.support.waiting import eventually

REALM = "KAFKA.EXAMPLE"
SERVICE = f"kafka/localhost@{REALM}"
PROGRAMS = ("krb5kdc", "kdb5_util", "kadmin.local")
# Debian has them where only root looks by default
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin"
CONFIG = """
[libdefaults]
    default_realm = {realm}
    # loopback has many names, and its services the one that clients ask for
    dns_canonicalize_hostname = false
    # TCP, which says at once that nobody listens
    udp_preference_limit = 1
[realms]
    {realm} = {{
        kdc = 127.0.0.1:{port}
    }}
[domain_realm]
    localhost = {realm}
"""
KDC_CONFIG = """
[kdcdefaults]
    kdc_listen = 127.0.0.1:{port}
    kdc_tcp_listen = 127.0.0.1:{port}
[realms]
    {realm} = {{
        database_name = {folder}/principal
        key_stash_file = {folder}/stash
    }}
"""
# without a password, and with its key in a file
ADD = "addprinc -randkey {principal}\nktadd -k {keytab} {principal}\n"
WITHIN_SECONDS = 30


@dataclass(frozen=True)
class Kerberos:
    """A realm with the broker of the tests and USERS in it.

    Attributes:
        folder: where the keys are.
        config: krb5.conf, for the java.security.krb5.conf of Java and the KRB5_CONFIG of others.
        service_keytab: the key of SERVICE.
    """

    folder: Path
    config: Path
    service_keytab: Path

    @property
    def listener(self) -> dict[str, str]:
        """The server.properties of the broker's listener GSSAPI, whose sessions end."""
        module = "com.sun.security.auth.module.Krb5LoginModule"
        key = f'useKeyTab=true storeKey=true keyTab="{self.service_keytab}" principal="{SERVICE}"'
        return {
            "listener.name.gssapi.sasl.enabled.mechanisms": "GSSAPI",
            "listener.name.gssapi.sasl.kerberos.service.name": "kafka",
            "listener.name.gssapi.gssapi.sasl.jaas.config": f"{module} required {key};",
            "listener.name.gssapi.gssapi.connections.max.reauth.ms": f"{SESSION_SECONDS}000",
        }

    def keytab(self, user: str) -> Path:
        """The file with the user's key."""
        return self.folder / f"{user}.keytab"

    def environ(self, user: str) -> dict[str, str]:
        """That of a program of the user's: it gets tickets by itself, for it has the key."""
        return {
            "KRB5_CONFIG": str(self.config),
            "KRB5_CLIENT_KTNAME": f"FILE:{self.keytab(user)}",
            "KRB5CCNAME": f"FILE:{self.folder}/{user}.tickets",
        }


@contextlib.contextmanager
def running() -> Iterator[Kerberos]:
    """Run its KDC for as long as the block. The test is skipped where there is none."""
    if not all(shutil.which(program, path=PATH) for program in PROGRAMS):
        pytest.skip("there is no KDC here: it is in Debian's krb5-kdc and krb5-admin-server")
    with tempfile.TemporaryDirectory(prefix="kerberos-") as name:
        folder, port = Path(name), next(free_ports)
        kerberos = Kerberos(folder, folder / "krb5.conf", folder / "service.keytab")
        for file, text in ((kerberos.config, CONFIG), (folder / "kdc.conf", KDC_CONFIG)):
            file.write_text(text.format(realm=REALM, folder=folder, port=port))
        environ = {
            **os.environ,
            "PATH": PATH,
            "KRB5_CONFIG": str(kerberos.config),
            "KRB5_KDC_PROFILE": f"{folder}/kdc.conf",
        }
        _make_realm(kerberos, environ)
        with (folder / "output").open("w") as output:
            process = subprocess.Popen(
                ["krb5kdc", "-n"], env=environ, stdout=output, stderr=output, start_new_session=True
            )
        try:
            eventually(lambda: process.poll() is not None or _listens(port))
            assert process.poll() is None, (folder / "output").read_text()
            yield kerberos
        finally:
            process.kill()
            process.wait()


def _make_realm(kerberos: Kerberos, environ: dict[str, str]) -> None:
    _run(environ, ["kdb5_util", "create", "-s", "-r", REALM, "-P", "master"])
    keytabs = {SERVICE: kerberos.service_keytab}
    keytabs |= {f"{user}@{REALM}": kerberos.keytab(user) for user in USERS}
    commands = [
        ADD.format(principal=principal, keytab=keytab) for principal, keytab in keytabs.items()
    ]
    said = _run(environ, ["kadmin.local", "-r", REALM], "".join(commands))
    # it says what went wrong, and ends as if nothing had
    assert all(keytab.exists() for keytab in keytabs.values()), said


def _run(environ: dict[str, str], command: list[str], given: str = "") -> str:
    """What the command says. It has to end well."""
    done = subprocess.run(
        command,
        env=environ,
        input=given,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=WITHIN_SECONDS,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), WITHIN_SECONDS).close()
        return True
    return False
