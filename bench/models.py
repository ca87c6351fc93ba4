"""What an inference costs, and what a swap costs those who ask meanwhile."""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import onnxruntime
from confluent_kafka import Producer

from bench.load import Request, load
from bench.run import LONE_SECONDS, SLICE_SECONDS, Bench, Numbers, loaded, warm_up
from bench.services import (
    BARE_ONNX,
    FASTAPI_ONNX,
    FASTAPI_ONNX_THREADS,
    OURS,
    Client,
    Running,
    Service,
)
from tests.support.models import adding, calculating, message

ROWS = np.ones((16, 2), np.float32)
HEAD = json.dumps(
    {
        "inputs": [
            {
                "name": "x",
                "datatype": "FP32",
                "shape": ROWS.shape,
                "parameters": {"binary_data_size": ROWS.nbytes},
            }
        ],
        "parameters": {"binary_data_output": True},
    }
).encode()
INFER = Request(
    "/v2/models/m/infer",
    {
        "Content-Type": "application/octet-stream",
        "Inference-Header-Content-Length": str(len(HEAD)),
    },
    HEAD + ROWS.tobytes(),
)

SMALL = adding(1)
# of the matrices of another model; with 512 it takes a millisecond
SIZE = 512
MEGABYTES = 50
STORED = 3
# room for one, so that the next is not in it
ONE_LARGE = str((MEGABYTES + 10) * 2**20)
# long enough for several swaps
SWAPS_SECONDS = 3.0


class Retraining:
    """Whoever sends models, and waits until each is served."""

    def __init__(self, bench: Bench, topic: str, served: Running) -> None:
        self._topic = topic
        self._producer = Producer({"bootstrap.servers": bench.servers, "linger.ms": 0})
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


def models(bench: Bench) -> Numbers:
    """Inferences by turns with peers, and swaps under a load that others notice."""
    asked = {
        "small": _asked(bench, SMALL, (FASTAPI_ONNX, BARE_ONNX)),
        "medium": _asked(bench, calculating(SIZE), (FASTAPI_ONNX_THREADS,)),
    }
    stored = []
    for number in range(STORED):
        model, path = adding(number, megabytes=MEGABYTES), bench.folder / f"{number}.onnx"
        path.write_bytes(model)
        stored.append(message(model, uri=f"file://{path}"))
    large = itertools.cycle(stored)
    numbers: Numbers = {"pairs": [], "swaps": 0}
    served: dict[str, list[float]] = {}
    settings = {"MODEL_URI_PREFIXES": f"file://{bench.folder}/"}
    with _serving(bench, SMALL, MODEL_CACHE_BYTES=ONE_LARGE, **settings) as (running, retraining):
        retraining.send(next(large))
        warm_up(running, INFER)
        for _ in range(bench.repeats):
            bench.progress("inferences, and no swaps")
            calm = load(running.port, SWAPS_SECONDS, INFER)
            bench.progress("inferences and swaps")
            with _swapping(retraining, large) as swaps:
                swapping = load(running.port, SWAPS_SECONDS, INFER)
            numbers["pairs"].append({"on": asdict(swapping), "off": asdict(calm)})
            numbers["swaps"] += len(swaps)
        served["50 MB by URI, new to this machine"] = _until_served(bench, retraining, large)
    with _serving(bench, SMALL, **settings) as (_, retraining):
        small = [message(adding(number)) for number in range(1, 1 + STORED * bench.repeats)]
        served["small and inline, new to this machine"] = _until_served(
            bench, retraining, iter(small)
        )
        served["small and inline, in the cache"] = _until_served(bench, retraining, iter(small))
        _until_served(bench, retraining, large)
        served["50 MB by URI, in the cache"] = _until_served(bench, retraining, large)
    return {"asked": asked, "alone": _alone(), **numbers, "served": served}


def model_steps(bench: Bench) -> int:
    return 5 * bench.slices + 2 * bench.repeats + 5 * STORED * bench.repeats


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


def _asked(bench: Bench, model: bytes, peers: Sequence[Service]) -> dict[str, Any]:
    """By turns with peers, which have the same model from a file."""
    path = bench.folder / f"asked-{len(model)}.onnx"
    path.write_bytes(model)
    numbers: dict[str, list[dict[str, float]]] = {}
    with contextlib.ExitStack() as stack:
        running, _ = stack.enter_context(_serving(bench, model))
        services = {OURS.name: running}
        for peer in peers:
            services[peer.name] = stack.enter_context(
                bench.serving(peer, bench.topic(), 1, BENCH_MODEL=str(path))
            )
        for served in services.values():
            warm_up(served, INFER)
        for _ in range(bench.slices):
            for name, served in services.items():
                bench.progress(f"inferences by {name}")
                asked = loaded(served, INFER)
                numbers.setdefault(name, []).append({**asked, "per_core": 1 / asked["cpu"]})
    return numbers


@contextlib.contextmanager
def _serving(bench: Bench, model: bytes, **environ: str) -> Iterator[tuple[Running, Retraining]]:
    topic, state = bench.topic(), message(model)
    bench.send(topic, iter([json.dumps({"state": state}).encode()]))
    cache = bench.folder / f"models-{topic}"
    shown: dict[str, Any] = {name: value for name, value in state.items() if name != "data"}
    with bench.serving(
        OURS, topic, shown, STATE_LOADER="onnx", MODEL_CACHE_DIR=str(cache), **environ
    ) as served:
        yield served, Retraining(bench, topic, served)


@contextlib.contextmanager
def _swapping(retraining: Retraining, models: Iterator[dict[str, Any]]) -> Iterator[list[float]]:
    """One after the other; gives how long each took."""
    swaps: list[float] = []
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            swaps.append(retraining.send(next(models)))

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield swaps
    finally:
        done.set()
        thread.join(60)


def _alone() -> float:
    """Runs a second of the same model and the same tensors, and nothing else."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(SMALL, options)
    end = time.perf_counter() + SLICE_SECONDS
    for count in itertools.count():
        if time.perf_counter() > end:
            return count / SLICE_SECONDS
        session.run(["y"], {"x": ROWS})
    raise AssertionError
