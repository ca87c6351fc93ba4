"""An SFTP server on loopback, which knows one user by a key."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paramiko


class _Access(paramiko.ServerInterface):  # type: ignore[misc]  # it has no types
    def __init__(self, user: str, key: paramiko.PKey) -> None:
        self._user = user
        self._key = key

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        is_known = username == self._user and key == self._key
        answer: int = paramiko.AUTH_SUCCESSFUL if is_known else paramiko.AUTH_FAILED
        return answer

    def check_channel_request(self, kind: str, chanid: int) -> int:
        answer: int = paramiko.OPEN_SUCCEEDED
        return answer


class _Files(paramiko.SFTPServerInterface):  # type: ignore[misc]
    def __init__(self, server: paramiko.ServerInterface, folder: Path) -> None:
        super().__init__(server)
        self._folder = folder

    def stat(self, path: str) -> Any:
        try:
            return paramiko.SFTPAttributes.from_stat(os.stat(self._folder / path.lstrip("/")))
        except OSError as error:
            return paramiko.SFTPServer.convert_errno(error.errno)

    lstat = stat

    def open(self, path: str, flags: int, attr: paramiko.SFTPAttributes) -> Any:
        handle = paramiko.SFTPHandle(flags)
        handle.readfile = (self._folder / path.lstrip("/")).open("rb")
        return handle


@contextlib.contextmanager
def sftp_serving(
    folder: Path, user: str, key: paramiko.PKey
) -> Iterator[tuple[int, list[paramiko.Transport]]]:
    """Serve the folder; gives the port, and the connections that there have been."""
    connections: list[paramiko.Transport] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with contextlib.suppress(OSError):  # until it is closed
                while True:
                    client, _ = listening.accept()
                    transport = paramiko.Transport(client)
                    transport.add_server_key(key)
                    transport.set_subsystem_handler("sftp", paramiko.SFTPServer, _Files, folder)
                    connections.append(transport)
                    transport.start_server(server=_Access(user, key), event=threading.Event())

        threading.Thread(target=serve, daemon=True).start()
        try:
            yield listening.getsockname()[1], connections
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            for transport in connections:
                transport.close()
