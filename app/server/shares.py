"""How many connections each worker has, and which workers are starting, for all workers to see."""

from __future__ import annotations

import mmap
import struct

NOT_SERVING, STARTING = -1, -2
MOST_WORKERS = 256
# a worker may have a quarter more than another, and two
MOST_RATIO, MOST_MORE = 1.25, 2


def shared_memory() -> mmap.mmap:
    """For all workers that this process, the master, forks."""
    memory = mmap.mmap(-1, MOST_WORKERS * struct.calcsize("i"))
    counts = memoryview(memory).cast("i")
    for number in range(MOST_WORKERS):
        counts[number] = NOT_SERVING
    return memory


class Shares:
    """Of all workers. Each writes its own number only, at once, so that it takes no lock."""

    def __init__(self, memory: mmap.mmap) -> None:
        self.counts = memoryview(memory).cast("i")

    def of(self, age: int) -> Share:
        """Give the share of a worker, by the number that gunicorn gives each."""
        return Share(self, age % MOST_WORKERS)


class Share:
    """One worker's."""

    def __init__(self, shares: Shares, number: int) -> None:
        self._counts = shares.counts
        self._number = number
        self._has_ended = False

    def begin(self) -> None:
        """Note that it is about to take connections."""
        self._counts[self._number] = STARTING

    def note(self, connections: int) -> None:
        self._counts[self._number] = NOT_SERVING if self._has_ended else connections

    def end(self) -> None:
        """Note that it takes no connections any more; those that it has are not noted."""
        self._has_ended = True
        self._counts[self._number] = NOT_SERVING

    def is_large(self) -> bool:
        """Whether another worker has so many fewer that the next client is to be its."""
        own = self._counts[self._number]
        least = min((count for count in self._others() if count >= 0), default=own)
        return own > MOST_RATIO * least + MOST_MORE

    def is_another_starting(self) -> bool:
        return STARTING in self._others()

    def _others(self) -> list[int]:
        counts = list(self._counts)
        del counts[self._number]
        return counts
