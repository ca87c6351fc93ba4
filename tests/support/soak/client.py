"""Asks for the state all along, and notes each answer that is wrong."""

from __future__ import annotations

import threading
import time

import requests

ANSWER_SECONDS = 5.0
# a connection that a worker has taken just before it is killed is lost with it
KILL_SECONDS = 1.0


class Client:
    """Asks for the state over and over, on new connections; notes each answer that is wrong."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="client", daemon=True)
        self.killed_at = -KILL_SECONDS
        self.may_be_unknown = False
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
            may_be_unknown = self.may_be_unknown
            try:
                answer = requests.get(self._url, timeout=ANSWER_SECONDS)
            except requests.RequestException as error:
                lost = isinstance(error, (requests.ConnectionError, requests.Timeout))
                if not lost or began > self.killed_at + KILL_SECONDS:
                    self._note(repr(error))
                continue
            self.answers += 1
            self.longest = max(self.longest, time.monotonic() - began)
            unknown = answer.status_code == 503 and (may_be_unknown or self.may_be_unknown)
            if answer.status_code != 200 and not unknown:
                self._note(f"{answer.status_code}: {answer.text}")

    def _note(self, what: str) -> None:
        self.wrong.append(f"{time.strftime('%H:%M:%S')} {what}")
