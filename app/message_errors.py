"""Why a message does not become the state."""

from __future__ import annotations


class NotServed(Exception):
    """A message that does not become the state.

    Attributes:
        reason: one word of a small fixed set, to count by.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(_valid_utf8(detail))
        self.reason = _valid_utf8(reason)


class InvalidMessage(NotServed, ValueError):
    """A message that cannot become the state."""


class RetryableError(NotServed):
    """The message may become the state later: what it needs is not there now."""


def _valid_utf8(text: object) -> str:
    return str(text).encode(errors="backslashreplace").decode()
