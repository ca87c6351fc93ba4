"""Waiting for a condition, never for a time."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(condition: Callable[[], T], within: float = 20.0) -> T:
    """Give the first true result of `condition`; fail after `within` seconds without one."""
    deadline = time.monotonic() + within
    while not (result := condition()):
        assert time.monotonic() < deadline, f"not within {within} s: last seen {result!r}"
        time.sleep(0.01)
    return result


def is_cut_off(client: socket.socket, dripping: bytes) -> bool:
    """Whether the server has closed the connection of a `client` that sends a little more each
    time it is looked at; its time-out is short."""
    try:
        client.sendall(dripping)
        return client.recv(1) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True
