"""Waiting for a condition, never for a time."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# the pause between two looks grows, for each may cost what is waited for some of its time
FIRST_PAUSE_SECONDS = 0.005
LONGEST_PAUSE_SECONDS = 0.05


def eventually(condition: Callable[[], T], within: float = 20.0) -> T:
    """Give the first true result of `condition`; fail after `within` seconds without one."""
    deadline = time.monotonic() + within
    pause = FIRST_PAUSE_SECONDS
    while not (result := condition()):
        assert time.monotonic() < deadline, f"not within {within} s: last seen {result!r}"
        time.sleep(pause)
        pause = min(pause * 1.5, LONGEST_PAUSE_SECONDS)
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
