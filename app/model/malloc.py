"""What becomes of memory that is freed."""

from __future__ import annotations

import ctypes

# of glibc's malloc.h
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
LARGE_BYTES = 2**20
# of free memory at the end of the heap
KEPT_BYTES = 2**24


def return_large_blocks() -> None:
    """Have what is large returned to the system as soon as it is freed.

    By default glibc learns from the first of them to keep such blocks, for as long as something is
    behind them. With another C library nothing is done.
    """
    c = ctypes.CDLL(None)
    if hasattr(c, "mallopt"):
        c.mallopt(_MMAP_THRESHOLD, LARGE_BYTES)
        c.mallopt(_TRIM_THRESHOLD, KEPT_BYTES)
