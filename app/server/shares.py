"""How many connections each worker has, for all workers to see."""

from __future__ import annotations

import mmap
import struct

NOT_SERVING = -1
MOST_WORKERS = 256
# a worker may have a quarter more than another, and two
MOST_RATIO, MOST_MORE = 1.25, 2


class Shares:
    """Made by the master, in memory that the workers that it forks share. Each writes its own
    number only, at once, so that it takes no lock."""

    def __init__(self) -> None:
        memory = mmap.mmap(-1, MOST_WORKERS * struct.calcsize("i"))
        self.counts = memoryview(memory).cast("i")
        for number in range(MOST_WORKERS):
            self.counts[number] = NOT_SERVING

    def of(self, age: int) -> Share:
        """Give the share of a worker, by the number that gunicorn gives each."""
        return Share(self, age % MOST_WORKERS)


class Share:
    """One worker's."""

    def __init__(self, shares: Shares, number: int) -> None:
        self._counts = shares.counts
        self._number = number
        self._has_ended = False

    def note(self, connections: int) -> None:
        self._counts[self._number] = NOT_SERVING if self._has_ended else connections

    def end(self) -> None:
        """Note that it takes no connections any more; those that it has are not noted."""
        self._has_ended = True
        self._counts[self._number] = NOT_SERVING

    def is_large(self) -> bool:
        """Whether another worker has so many fewer that the next client is to be its."""
        counts = list(self._counts)
        own = counts.pop(self._number)
        least = min((count for count in counts if count != NOT_SERVING), default=own)
        return own > MOST_RATIO * least + MOST_MORE
