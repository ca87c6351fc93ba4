"""How long to wait before what failed is tried again."""

from __future__ import annotations

import random
from collections.abc import Callable

FIRST_SECONDS = 0.1
# each try may count towards the locking of an account
FIRST_REFUSED_SECONDS = 30.0
LONGEST_REFUSED_SECONDS = 600.0


def backoff_seconds(
    failures: int,
    longest: float,
    chance: Callable[[], float] = random.random,
    *,
    first: float = FIRST_SECONDS,
) -> float:
    """Give the pause after so many failures in a row. It grows, up to `longest`, and is jittered so
    that a thousand instances do not all come back at once.

    Args:
        first: the shortest pause after the first failure, in seconds.
    """
    return min(first * 2.0 ** min(failures, 20), longest) * (0.5 + chance() / 2)


def refused_backoff_seconds(refusals: int, chance: Callable[[], float] = random.random) -> float:
    """Give the pause after a cluster has refused who this client says it is."""
    return backoff_seconds(refusals, LONGEST_REFUSED_SECONDS, chance, first=FIRST_REFUSED_SECONDS)
