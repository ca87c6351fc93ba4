"""How much memory inference requests may hold at once."""

from __future__ import annotations

import threading

from app.web.limits import LimitExceeded

# taken at once: a small request takes no more
GRANT_BYTES = 2**14


class Budget:
    """Bounds how many bytes requests hold, from the first that is received to the last that is
    sent.

    `_lock` guards `_held`.
    """

    def __init__(self, most: int) -> None:
        self._lock = threading.Lock()
        self._most = most
        self._held = 0

    @property
    def held(self) -> int:
        with self._lock:
            return self._held

    def take(self, size: int, own: int) -> None:
        """Note that who holds `own` bytes is about to hold `size` more.

        Raises:
            LimitExceeded: with what others hold it is too much. Who needs more than there is gets
                it while nobody else holds any.
        """
        with self._lock:
            if self._held + size > self._most and self._held > own:
                raise LimitExceeded(
                    f"requests hold {self._held} bytes, and this one needs {size} more; accepted "
                    f"are MODEL_MAX_HELD_BYTES, {self._most}"
                )
            self._held += size

    def give_back(self, size: int) -> None:
        with self._lock:
            self._held -= size


class Holding:
    """What one request holds; for its thread only."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._size = 0
        self._granted = 0

    def take(self, size: int) -> None:
        """
        Raises:
            LimitExceeded: others hold too much.
        """
        self._size += size
        if self._size > self._granted:
            wanted = max(self._size - self._granted, GRANT_BYTES)
            self._budget.take(wanted, self._granted)
            self._granted += wanted

    def close(self) -> None:
        """Hold nothing any more."""
        granted, self._granted = self._granted, 0
        self._budget.give_back(granted)

    @property
    def is_small(self) -> bool:
        return self._granted <= GRANT_BYTES

    def keep(self, size: int) -> None:
        """Give back what is held beyond `size` bytes."""
        self._size = size
        spare = self._granted - max(size, GRANT_BYTES)
        if spare > 0:
            self._granted -= spare
            self._budget.give_back(spare)
