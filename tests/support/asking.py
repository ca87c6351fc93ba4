"""Clients that ask for the state over and over."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import requests

from tests.support.processes import Program


@contextlib.contextmanager
def asking(program: Program) -> Iterator[list[requests.Response | None]]:
    """Ask for the state over and over, on new connections; gives the answers, None for none."""
    answers: list[requests.Response | None] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            answers.append(program.get())

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        done.set()
        for thread in threads:
            thread.join()
