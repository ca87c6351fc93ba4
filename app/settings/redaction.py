"""Takes secrets out of texts that somebody else has written, such as a client's errors."""

from __future__ import annotations

import re
import string
import threading
from collections import deque
from collections.abc import Iterable

# a shorter one may be a part of any word, and to take it out would tell what it is
SHORTEST_TO_REDACT = 8
REDACTED = "(hidden)"
# of those that are in no text any more when some others have come, such as tokens
MOST_PASSING = 20

# neither repr nor a URL writes these otherwise
PLAIN = set(string.ascii_letters + string.digits + "-._~")


class Redactor:
    """Knows the secrets of one program. For any thread.

    `_lock` guards `_lasting` and `_passing`; `_pattern` is replaced as a whole.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lasting: set[str] = set()
        self._passing: deque[str] = deque(maxlen=MOST_PASSING)
        self._pattern: re.Pattern[str] | None = None

    def add(self, secret: str, *, is_passing: bool = False) -> None:
        """
        Args:
            is_passing: whether it is replaced every few minutes.
        """
        if len(secret) < SHORTEST_TO_REDACT:
            return
        with self._lock:
            if secret in self._lasting or secret in self._passing:
                return
            if is_passing:
                self._passing.append(secret)
            else:
                self._lasting.add(secret)
            self._pattern = _pattern_of([*self._lasting, *self._passing])

    def redact(self, text: str) -> str:
        pattern = self._pattern
        return pattern.sub(REDACTED, text) if pattern else text


def _pattern_of(secrets: Iterable[str]) -> re.Pattern[str]:
    """Matches the secrets, however they are written; of one that begins like another the whole."""
    longest_first = sorted(secrets, key=len, reverse=True)
    return re.compile("|".join("".join(map(_however_written, one)) for one in longest_first))


def _however_written(character: str) -> str:
    """A pattern of a character as it is, with the backslashes that repr adds, once or more often,
    and percent-encoded as in a URL."""
    if character in PLAIN:
        return re.escape(character)
    literally = r"\\+" if character == "\\" else r"\\*" + re.escape(character)
    encoded = "".join(f"%{byte:02x}" for byte in character.encode())
    return f"(?:{literally}|(?i:{encoded}))"
