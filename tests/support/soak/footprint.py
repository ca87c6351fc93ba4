"""What a process takes of memory, files and threads."""

from __future__ import annotations

from dataclasses import astuple, dataclass

import psutil

MEGABYTE = 1_000_000
# Python gives memory back in pieces of a megabyte, and seldom all of them
SPARE_BYTES = 15 * MEGABYTE
# connections to a broker that are being replaced, a client that has yet to be let go
SPARE_FILES = 10
# one for each answer at a time is kept for the next answers
SPARE_THREADS = 5


@dataclass(frozen=True)
class Footprint:
    bytes: int
    files: int
    threads: int

    @classmethod
    def of(cls, process: psutil.Process) -> Footprint:
        return cls(process.memory_info().rss, process.num_fds(), process.num_threads())

    def fits(self, first: Footprint) -> bool:
        spare = SPARE_BYTES, SPARE_FILES, SPARE_THREADS
        grown = (now - then for now, then in zip(astuple(self), astuple(first), strict=True))
        return all(more <= most for more, most in zip(grown, spare, strict=True))

    def __str__(self) -> str:
        return f"{self.bytes / MEGABYTE:.1f} MB, {self.files} files, {self.threads} threads"
