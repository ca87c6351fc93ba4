"""Takes secrets out of texts that somebody else has written, such as a client's errors."""

from __future__ import annotations

import re
from collections.abc import Iterable

# a shorter one may be a part of any word, and to take it out would tell what it is
SHORTEST_TO_REDACT = 8
REDACTED = "(hidden)"


def pattern_of(secrets: Iterable[str], sasl_password: str | None) -> re.Pattern[str] | None:
    """Matches the secrets, however they are written; None if there is nothing to match.

    Args:
        sasl_password: matched where a client shows its options, also if it is short.
    """
    patterns = [
        "".join(map(_however_written, secret))
        for secret in secrets
        if len(secret) >= SHORTEST_TO_REDACT
    ]
    if sasl_password:
        patterns.append(rf"(?<='sasl_plain_password': ){re.escape(repr(sasl_password))}")
    return re.compile("|".join(patterns)) if patterns else None


def _however_written(character: str) -> str:
    """A pattern of a character as it is, with the backslashes that repr adds, once or more often,
    and percent-encoded as in a URL."""
    literally = r"\\+" if character == "\\" else r"\\*" + re.escape(character)
    encoded = "".join(f"%{byte:02x}" for byte in character.encode())
    return f"(?:{literally}|(?i:{encoded}))"
