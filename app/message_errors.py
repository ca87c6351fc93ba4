"""Why a message does not become the state."""

from __future__ import annotations


class NotServed(Exception):
    """A message that does not become the state.

    Attributes:
        reason: one word of a small fixed set, to count by.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(_spelt(detail))
        self.reason = _spelt(reason)


class InvalidMessage(NotServed, ValueError):
    """A message that cannot become the state."""


class RetryableError(NotServed):
    """The message may become the state later: what it needs is not there now."""


def _spelt(text: object) -> str:
    """Make it valid UTF-8, whatever a loader gives."""
    return str(text).encode(errors="backslashreplace").decode()
