"""A process that tests freeze does nothing from then on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from dev.frozen import freeze
from tests.support.waiting import eventually

# the thread that takes the signal, the main one, waits; the other is at work
COUNTING = """
import pathlib, sys, threading
def count():
    with open(sys.argv[1], "ab", buffering=0) as file:
        while True:
            file.write(b".")
threading.Thread(target=count, daemon=True).start()
sys.stdin.read()
"""


def test_no_thread_of_a_frozen_process_runs_on(tmp_path):
    written: Path = tmp_path / "written"
    written.touch()
    for _ in range(5):
        with subprocess.Popen(
            [sys.executable, "-c", COUNTING, str(written)], stdin=subprocess.PIPE
        ) as process:
            try:
                before = written.stat().st_size
                eventually(lambda before=before: written.stat().st_size > before)
                freeze(process.pid)
                assert len({written.stat().st_size for _ in range(2000)}) == 1
            finally:
                process.kill()
