"""A client that keeps asking, and remembers what it was told."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import tritonclient.http as triton

from .train import Array

LONGEST_REQUEST = 5.0


@dataclass(frozen=True)
class Answer:
    """Which digits the images are, and the version of the model that says so."""

    at: float
    version: str
    digits: Array
    probabilities: Array


class Client:
    """Asks about the same images, one request after the other."""

    def __init__(self, address: str, model: str, pixels: Array) -> None:
        self.answers: list[Answer] = []
        self.failures: list[Exception] = []
        self.is_over = threading.Event()
        self._address = address
        self._model = model
        self._pixels = triton.InferInput("pixels", list(pixels.shape), "FP32")
        self._pixels.set_data_from_numpy(pixels.astype(np.float32))

    def keep_asking(self) -> None:
        with connect(self._address) as server:
            while not self.is_over.is_set():
                try:
                    self.answers.append(self._ask(server))
                except Exception as error:  # noqa: BLE001  # each package has its own
                    self.failures.append(error)

    def _ask(self, server: triton.InferenceServerClient) -> Answer:
        result = server.infer(self._model, [self._pixels])
        version = result.get_response()["model_version"]
        digits, probabilities = result.as_numpy("label"), result.as_numpy("probabilities")
        return Answer(time.monotonic(), version, digits, probabilities)


@contextmanager
def asking(address: str, model: str, pixels: Array) -> Iterator[Client]:
    """Have a client that asks for as long as the context lasts."""
    client = Client(address, model, pixels)
    thread = threading.Thread(target=client.keep_asking, name="client", daemon=True)
    thread.start()
    try:
        yield client
    finally:
        client.is_over.set()
        thread.join(2 * LONGEST_REQUEST)


def is_served(address: str, model: str, version: str) -> bool:
    with connect(address) as server:
        try:
            return bool(server.is_model_ready(model, version))
        except OSError:  # nothing listens yet
            return False


def connect(address: str) -> triton.InferenceServerClient:
    """For one thread; by itself it would wait for an answer for a minute."""
    return triton.InferenceServerClient(
        address, connection_timeout=LONGEST_REQUEST, network_timeout=LONGEST_REQUEST
    )
