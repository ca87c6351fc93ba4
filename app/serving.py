"""What the application knows of the server that serves it."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass


def no_deadline(connection: socket.socket) -> None:
    """For a server that has no deadline for answers."""


@dataclass(frozen=True)
class Server:
    """What serves the application.

    Attributes:
        threads: how many requests one process answers at once; None if that is not known.
        processes: how many processes serve.
        extend_deadline: called with the connection of a request that waits on purpose, so that a
            server with a deadline for answers counts it anew.
        body_errors: what reading a request's body raises where it is not HTTP.
    """

    threads: int | None = None
    processes: int = 1
    extend_deadline: Callable[[socket.socket], None] = no_deadline
    body_errors: tuple[type[Exception], ...] = ()
