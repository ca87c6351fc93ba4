"""How long to wait before what failed is tried again."""

from __future__ import annotations

import random
from collections.abc import Callable

FIRST_SECONDS = 0.1


def backoff_seconds(
    failures: int, longest: float, chance: Callable[[], float] = random.random
) -> float:
    """Give the pause after so many failures in a row. It grows, up to `longest`, and is jittered so
    that a thousand instances do not all come back at once."""
    return min(FIRST_SECONDS * 2.0 ** min(failures, 20), longest) * (0.5 + chance() / 2)
