"""Train a model, and train it again while a client keeps asking it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

import numpy as np
from sklearn.pipeline import Pipeline

from dev.broker import EmbeddedBroker
from dev.ports import free_ports

from .client import Answer, Client, asking, is_served
from .train import Array, Images, load_images, to_onnx, train

ROOT = Path(__file__).resolve().parents[2]
NAME = "digits"
TOPIC = "models"
FEW = 50
ANSWERS_OF_EACH = 500

LONGEST_WAIT = 20.0
LOOK_SECONDS = 0.01
LAST_LINES = 20
# the beginnings of variables that the caller has set for another service
CALLERS_OWN = ("KAFKA_", "STATE_", "MODEL_", "LOG_", "GUNICORN_", "WEB_CONCURRENCY", "API_TOKEN")

# looked at while waiting: an exception out of a handler could come when a process has just been
# started, and nobody would end it
stop_signals: list[int] = []


class Failed(Exception):
    """Something is not as it should be."""


def main() -> int:
    for stop_signal in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(stop_signal, lambda number, _: stop_signals.append(number))
    try:
        with tempfile.TemporaryDirectory(prefix="demo-model-") as folder:
            swap_while_asked(Path(folder))
    except (Failed, subprocess.TimeoutExpired) as error:
        if stop_signals:
            return 128 + stop_signals[0]
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


def swap_while_asked(folder: Path) -> None:
    """
    Raises:
        Failed: it has not shown what it is there to show.
    """
    broker = EmbeddedBroker()
    broker.create_topic(TOPIC)
    address = f"127.0.0.1:{next(free_ports)}"
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith(CALLERS_OWN)},
        "KAFKA_BOOTSTRAP_SERVERS": broker.address,
        "KAFKA_TOPIC": TOPIC,
        "STATE_LOADER": "onnx",
        "MODEL_CACHE_DIR": str(folder / "cache"),
        "GUNICORN_CMD_ARGS": f"--bind {address}",
    }
    _, ask = load_images()
    with serving(environ, folder / "service.log"):
        say(f"Broker: an embedded one at {broker.address}; service: http://{address}")
        first = train(FEW)
        send(first, "1", folder, environ)
        say(f"Sent version 1, which has learned from {FEW} images")
        wait_until(lambda: is_served(address, NAME, "1"), "version 1 is served")
        say(f"A client asks, again and again, which digits {len(ask.digits)} other images are:")
        with asking(address, NAME, ask.pixels) as client:
            wait_until(lambda: has_enough_of("1", client), "version 1 answers")
            show(1, client, ask)
            show(len(client.answers), client, ask)
            second = train()
            send(second, "2", folder, environ)
            say("Sent version 2, which has learned from all images")
            wait_until(lambda: has_enough_of("2", client), "version 2 answers")
    swap = [answer.version for answer in client.answers].index("2")
    for request in (swap, swap + 1, len(client.answers)):
        show(request, client, ask)
    conclude(client, {"1": first, "2": second}, ask)


@contextmanager
def serving(environ: Mapping[str, str], log: Path) -> Iterator[None]:
    with log.open("w") as output:
        service = subprocess.Popen(
            [sys.executable, "-m", "dev"],
            cwd=ROOT,
            env=environ,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield
    except Failed as error:
        lines = [line for line in log.read_text().splitlines() if " HTTP/1.1" not in line]
        told = [f"{error}; the last lines of the service:", *lines[-LAST_LINES:]]
        raise Failed("\n".join(told)) from error
    finally:
        service.terminate()
        service.wait(LONGEST_WAIT)


def send(classifier: Pipeline, version: str, folder: Path, environ: Mapping[str, str]) -> None:
    stop_if_told_to()  # training and what follows take seconds on a busy machine
    model = folder / f"{NAME}.onnx"
    model.write_bytes(to_onnx(classifier))
    stop_if_told_to()
    producer = subprocess.run(
        [sys.executable, "producer.py", "--model", str(model), "--version", version],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=LONGEST_WAIT,
        check=False,
    )
    if producer.returncode:
        raise Failed(f"version {version} is not sent: {producer.stderr.strip()}")


def stop_if_told_to() -> None:
    if stop_signals:
        raise Failed("stopped")


def wait_until(is_so: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + LONGEST_WAIT
    while not is_so():
        stop_if_told_to()
        if time.monotonic() > end:
            raise Failed(f"not within {LONGEST_WAIT:g} s: {what}")
        time.sleep(LOOK_SECONDS)


def has_enough_of(version: str, client: Client) -> bool:
    if client.failures:
        raise Failed(f"a request has failed: {client.failures[0]!r}")
    return sum(answer.version == version for answer in client.answers) >= ANSWERS_OF_EACH


def show(request: int, client: Client, ask: Images) -> None:
    answer = client.answers[request - 1]
    say(
        f"{answer.at - client.answers[0].at:7.3f} s  request {request:5}  version {answer.version}"
        f"  accuracy {accuracy(answer.digits, ask):.3f}"
    )


def conclude(client: Client, classifiers: Mapping[str, Pipeline], ask: Images) -> None:
    """Say how it went, and compare each answer with that of scikit-learn."""
    predicted = {
        version: (classifier.predict(ask.pixels), classifier.predict_proba(ask.pixels))
        for version, classifier in classifiers.items()
    }

    def is_predicted(answer: Answer) -> bool:
        digits, probabilities = predicted[answer.version]
        return np.array_equal(answer.digits, digits) and np.allclose(
            answer.probabilities, probabilities, atol=1e-4
        )

    versions = [version for version, _ in groupby(answer.version for answer in client.answers)]
    requests, failed = len(client.answers) + len(client.failures), len(client.failures)
    right = sum(map(is_predicted, client.answers))
    before, after = (accuracy(client.answers[index].digits, ask) for index in (0, -1))
    say(
        f"{requests} requests, {failed} failed; versions {', then '.join(versions)}; "
        f"accuracy {before:.3f}, then {after:.3f}; {right} answers are what scikit-learn predicts "
        "with the version they name"
    )
    if right != requests or versions != list(classifiers) or before >= after:
        raise Failed("this is not what the demo is there to show")


def accuracy(digits: Array, images: Images) -> float:
    return float(np.mean(digits == images.digits))


def say(text: str) -> None:
    print(text, flush=True)
