"""Says of each event of /state/stream when it came.

Usage: python -m bench.stream_reader PORT
"""

from __future__ import annotations

import http.client
import sys
import time


def main(port: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", int(port))
    connection.request("GET", "/state/stream?events=state")
    answer = connection.getresponse()
    while line := answer.readline():
        at = time.monotonic()
        if line.startswith(b"id: ") and line != b"id: initial\n":
            print(int(line.split(b"-")[1]), at, flush=True)


main(*sys.argv[1:])
