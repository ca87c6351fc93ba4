"""When the reader pauses, so that a flood is not read message by message."""

from __future__ import annotations

import time
from collections.abc import Callable

# so many messages are looked at as they come
UNPAUSED_A_SECOND = 50


class Conflation:
    """A budget of messages, which grows by `UNPAUSED_A_SECOND` and holds a second's worth.

    While it is overdrawn the reader pauses after each look: of what comes meanwhile only the last
    valid message matters, so that a flood costs no more than its pauses allow. For one thread only.
    """

    def __init__(self, pause_seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            now: a clock that never goes back, in seconds.
        """
        self._pause_seconds = pause_seconds
        self._now = now
        self._budget = float(UNPAUSED_A_SECOND)
        self._looked_at = now()

    def pause_after(self, passed: int) -> float:
        """Give the seconds to pause after a look that passed so many offsets."""
        now = self._now()
        budget = self._budget + (now - self._looked_at) * UNPAUSED_A_SECOND
        # overdrawn by a second's worth at most, or a flood would be paused for long after its end
        self._budget = max(min(budget, UNPAUSED_A_SECOND) - passed, -UNPAUSED_A_SECOND)
        self._looked_at = now
        return self._pause_seconds if self._budget < 0 else 0.0
