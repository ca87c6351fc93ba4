"""Goes round a loop of Python from one time.monotonic() to another, and says how often.

Usage: python -m bench.loop BEGIN END
"""

from __future__ import annotations

import itertools
import sys
import time


def main(begin: str, end: str) -> None:
    time.sleep(float(begin) - time.monotonic())
    until = float(end)
    for count in itertools.count():
        if time.monotonic() > until:
            print(count)
            return


main(*sys.argv[1:])
