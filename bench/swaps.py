"""How soon a new model is served, and what that costs those who ask meanwhile."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

import numpy as np
from confluent_kafka import Producer

from bench.load import load
from bench.models import HEAD_SIZE, INFER, ROWS, SMALL, serving_model, shown
from bench.run import LONE_SECONDS, Bench, Numbers, warm_up
from bench.services import Client, Running
from tests.support.models import adding, message

CLIENTS = (1, 4, 8)
MEGABYTES = 50
STORED = 3
# room for one, so that the next is not in it
ONE_LARGE = str((MEGABYTES + 10) * 2**20)
# long enough for several swaps
SWAPS_SECONDS = 3.0
# from one to the next: the faster a model is served, the more of them would share those seconds
SWAP_PERIOD_SECONDS = 0.6
NEW_SMALL = "small and inline, new to this machine"

QUICK_MODELS, QUICK_SECONDS = 200, 0.03
# who asks while they come, from threads of this process
ASKING = 4
SWAPS = re.compile(r"^kafka_state_model_swaps_total (\S+)$", re.MULTILINE)


class Retraining:
    """Whoever sends models, and waits until each is served."""

    def __init__(self, bench: Bench, topic: str, served: Running) -> None:
        self._topic = topic
        self._producer = new_producer(bench)
        self._port = served.port
        self._versions = itertools.count(2)

    def send(self, state: dict[str, Any]) -> float:
        """Give the seconds from before the message is sent until /state names its version."""
        version = str(next(self._versions))
        value = json.dumps({"state": {**state, "version": version}})
        began = 0.0

        def produce() -> None:
            nonlocal began
            began = time.monotonic()
            self._producer.produce(self._topic, value, partition=0)
            assert self._producer.flush(10) == 0

        # one that has waited is closed
        with contextlib.closing(Client(self._port)) as client:
            assert client.next_state(after=produce)["version"] == version
        return time.monotonic() - began


def new_producer(bench: Bench) -> Producer:
    return Producer({"bootstrap.servers": bench.servers, "linger.ms": 0})


def swaps(bench: Bench) -> Numbers:
    """Swaps under a load that others notice, one by one, and many after each other."""
    stored = []
    for number in range(STORED):
        model, path = adding(number, megabytes=MEGABYTES), bench.folder / f"{number}.onnx"
        path.write_bytes(model)
        stored.append(message(model, uri=f"file://{path}"))
    large = itertools.cycle(stored)
    pairs: dict[str, list[Numbers]] = {str(clients): [] for clients in CLIENTS}
    count = 0
    served: dict[str, list[float]] = {}
    settings = {"MODEL_URI_PREFIXES": f"file://{bench.folder}/"}
    with serving_model(bench, SMALL, MODEL_CACHE_BYTES=ONE_LARGE, **settings) as (running, topic):
        retraining = Retraining(bench, topic, running)
        retraining.send(next(large))
        warm_up(running, INFER)
        for _ in range(bench.repeats):
            for clients in CLIENTS:
                bench.progress("inferences, and no swaps")
                calm = load(running.port, SWAPS_SECONDS, INFER, clients)
                bench.progress("inferences and swaps")
                with _swapping(retraining, large) as done:
                    swapping = load(running.port, SWAPS_SECONDS, INFER, clients)
                pairs[str(clients)].append({"on": asdict(swapping), "off": asdict(calm)})
                count += len(done)
        served["50 MB by URI, new to this machine"] = _until_served(bench, retraining, large)
    with serving_model(bench, SMALL, **settings) as (running, topic):
        retraining = Retraining(bench, topic, running)
        small = [message(adding(number)) for number in range(1, 1 + STORED * bench.repeats)]
        served[NEW_SMALL] = _until_served(bench, retraining, iter(small))
        served["small and inline, in the cache"] = _until_served(bench, retraining, iter(small))
        _until_served(bench, retraining, large)
        served["50 MB by URI, in the cache"] = _until_served(bench, retraining, large)
    return {"pairs": pairs, "swaps": count, "served": served, "quick": _quickly(bench)}


def swap_steps(bench: Bench) -> int:
    return (2 * len(CLIENTS) + 5 * STORED) * bench.repeats + bench.few


def _until_served(
    bench: Bench, retraining: Retraining, states: Iterator[dict[str, Any]]
) -> list[float]:
    """How long it takes for each of some."""
    taken = []
    for state in itertools.islice(states, STORED * bench.repeats):
        bench.progress("models until they are served")
        time.sleep(LONE_SECONDS)
        taken.append(retraining.send(state))
    return taken


@contextlib.contextmanager
def _swapping(retraining: Retraining, models: Iterator[dict[str, Any]]) -> Iterator[list[float]]:
    """One a period; gives how long each took."""
    swaps: list[float] = []
    done = threading.Event()

    def swap() -> None:
        rest = 0.0
        while not done.wait(rest):
            swaps.append(retraining.send(next(models)))
            rest = max(SWAP_PERIOD_SECONDS - swaps[-1], 0.0)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield swaps
    finally:
        done.set()
        thread.join(60)


def _quickly(bench: Bench) -> list[Numbers]:
    """New models come faster than they can be loaded; the version of each is the number that it
    adds, so that every answer can be looked at."""
    numbers: list[Numbers] = []
    first = itertools.count(2, QUICK_MODELS)
    producer = new_producer(bench)
    with serving_model(bench, SMALL) as (running, topic):
        for _ in range(bench.few):
            bench.progress("two hundred models after each other")
            start = next(first)
            states = [message(adding(n), str(n)) for n in range(start, start + QUICK_MODELS)]
            before = _swaps(running)
            with _asking(running.port) as told:
                began = time.monotonic()
                for number, state in enumerate(states):
                    time.sleep(max(began + number * QUICK_SECONDS - time.monotonic(), 0))
                    producer.produce(topic, json.dumps({"state": state}), partition=0)
                    producer.poll(0)
                assert producer.flush(10) == 0
                running.wait_for(shown(states[-1]))
            numbers.append({**told, "served": _swaps(running) - before})
    return numbers


def _swaps(running: Running) -> int:
    """How many models have taken the place of another in the one worker."""
    with contextlib.closing(Client(running.port)) as client:
        told = SWAPS.search(client.get("/metrics")[1])
    return int(float(told[1])) if told else 0


@contextlib.contextmanager
def _asking(port: int) -> Iterator[Counter[str]]:
    """Clients that each ask again when they are answered, for as long as the block; after it, how
    many were `answered`, and how many of these `wrong`, and how many `failed`."""
    told = Counter(answered=0, wrong=0, failed=0)
    done = threading.Event()
    with ThreadPoolExecutor(ASKING) as pool:
        asking = [pool.submit(_ask_again_and_again, port, done) for _ in range(ASKING)]
        try:
            yield told
        finally:
            done.set()
    for future in asking:
        told.update(future.result())


def _ask_again_and_again(port: int, done: threading.Event) -> Counter[str]:
    told: Counter[str] = Counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    while not done.is_set():
        try:
            connection.request("POST", INFER.path, INFER.body, dict(INFER.headers))
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException):
            told["failed"] += 1
            connection.close()  # the next request opens another
            continue
        if answer.status == 200:
            told["answered"] += 1
            told["wrong"] += not is_right(body, int(answer.headers[HEAD_SIZE]))
        else:
            told["failed"] += 1
    connection.close()
    return told


def is_right(body: bytes, size: int) -> bool:
    """Whether the tensor is what the version that the answer names computes."""
    version = int(json.loads(body[:size])["model_version"])
    return body[size:] == (ROWS + np.float32(version)).tobytes()
