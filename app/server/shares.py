"""How many connections each worker has, for all workers to see."""

from __future__ import annotations

from multiprocessing.sharedctypes import RawArray

NOT_SERVING = -1
MOST_WORKERS = 256
# what one may have more than another, besides some for the first few
EVEN, FIRST = 1.25, 2


class Shares:
    """Made by the master, in memory that the workers that it forks share. Each writes its own
    number only, at once, so that it takes no lock."""

    def __init__(self) -> None:
        self.counts = RawArray("i", [NOT_SERVING] * MOST_WORKERS)

    def of(self, age: int) -> Share:
        """Give the share of a worker, by the number that gunicorn gives each."""
        return Share(self, age % MOST_WORKERS)


class Share:
    """One worker's."""

    def __init__(self, shares: Shares, number: int) -> None:
        self._counts = shares.counts
        self._number = number

    def note(self, connections: int) -> None:
        self._counts[self._number] = connections

    def end(self) -> None:
        """Note that it takes no connections any more."""
        self._counts[self._number] = NOT_SERVING

    def is_large(self) -> bool:
        """Whether another worker has so many fewer that the next client is to be its."""
        counts: list[int] = list(self._counts)
        own = counts.pop(self._number)
        least = min((count for count in counts if count != NOT_SERVING), default=own)
        return own > EVEN * least + FIRST
