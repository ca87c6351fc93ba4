"""What is said of certificates that no broker of the other tests has."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest
import trustme

from app.settings import Settings
from app.settings.security import SecuritySettings
from app.topic_log.connectivity import reaching
from app.topic_log.errors import Unreachable


@contextlib.contextmanager
def listening(authority: trustme.CA, name: str, **validity: datetime) -> Iterator[int]:
    """The port of one who shows this certificate, once."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name, **validity).configure_cert(context)

    def show(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection, contextlib.suppress(OSError):
            context.wrap_socket(connection, server_side=True)

    with socket.create_server(("127.0.0.1", 0)) as server:
        shows = threading.Thread(target=show, args=[server])
        shows.start()
        yield server.getsockname()[1]
        shows.join(10)


@pytest.mark.parametrize(
    ("host", "validity", "expected"),
    [
        (
            "localhost",
            {"not_after": datetime(2020, 1, 1, tzinfo=timezone.utc)},
            "its certificate is not accepted: certificate has expired",
        ),
        (
            "127.0.0.1",
            {},
            (
                "its certificate is not accepted: IP address mismatch, certificate is not valid for "
                "'127.0.0.1'. (KAFKA_SSL_CHECK_HOSTNAME)"
            ),
        ),
    ],
)
def test_names_the_variable_that_matters_for_a_certificate(
    tmp_path: Path, host, validity, expected
):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca")
    with listening(authority, "localhost", **validity) as port:
        settings = Settings(
            topic="t",
            bootstrap_servers=f"{host}:{port}",
            security=SecuritySettings(protocol="SSL", ssl_cafile=str(tmp_path / "ca")),
        )
        with pytest.raises(Unreachable) as raised, reaching(settings):
            pass
    assert str(raised.value) == f"no broker can be reached: {host}:{port}: {expected}"
