"""What the application knows of the server that serves it."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass


def do_nothing(connection: socket.socket) -> None:
    """For a server that has no deadline for answers, and a thread for each request."""


@dataclass(frozen=True)
class Server:
    """What serves the application.

    Attributes:
        threads: how many requests one process answers at once; None if that is not known.
        processes: how many processes serve.
        before_wait: called with the connection of a request that is about to wait on purpose: a
            server with a deadline for answers counts it anew.
        body_errors: what reading a request's body raises where it is not HTTP.
    """

    threads: int | None = None
    processes: int = 1
    before_wait: Callable[[socket.socket], None] = do_nothing
    body_errors: tuple[type[Exception], ...] = ()
