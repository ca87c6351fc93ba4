"""Waiting for a condition, never for a time."""

from __future__ import annotations

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
