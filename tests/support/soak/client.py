"""Asks for the state all along, and notes each answer that is wrong."""

from __future__ import annotations

import threading
import time

import requests

ANSWER_SECONDS = 5.0
# a connection that a worker has taken just before it is killed is lost with it
KILL_SECONDS = 1.0


class Client:
    """Asks for the state over and over, on new connections; notes each answer that is wrong.

    Attributes:
        is_down: whether nothing is there to answer.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="client", daemon=True)
        self.killed_at = -KILL_SECONDS
        self.is_down = False
        self.answers = 0
        self.longest = 0.0
        self.wrong: list[str] = []

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *raised: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(0.02):
            began = time.monotonic()
            is_down = self.is_down
            try:
                answer = requests.get(self._url, timeout=ANSWER_SECONDS)
            except requests.RequestException as error:
                lost = isinstance(error, (requests.ConnectionError, requests.Timeout))
                was_killed = is_down or self.is_down or began < self.killed_at + KILL_SECONDS
                if not (lost and was_killed):
                    self._note(repr(error))
                continue
            self.answers += 1
            self.longest = max(self.longest, time.monotonic() - began)
            if answer.status_code != 200:
                self._note(f"{answer.status_code}: {answer.text}")

    def _note(self, what: str) -> None:
        self.wrong.append(f"{time.strftime('%H:%M:%S')} {what}")
