"""What an inference costs, beside peers with the same model."""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime

from bench.load import Request
from bench.run import SLICE_SECONDS, Bench, Numbers, loaded, warm_up
from bench.services import (
    BARE_ONNX,
    FASTAPI_ONNX,
    FASTAPI_ONNX_THREADS,
    OURS,
    Running,
    Service,
)
from tests.support.models import adding, calculating, message

ROWS = np.ones((16, 2), np.float32)
HEAD_SIZE = "Inference-Header-Content-Length"
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
    {"Content-Type": "application/octet-stream", HEAD_SIZE: str(len(HEAD))},
    HEAD + ROWS.tobytes(),
)

SMALL = adding(1)
# by the size of their matrices: on one thread 1.2 ms and 20 ms
MEDIUM, LARGE = 512, 1312
FEW_CLIENTS, MANY_CLIENTS = 8, 64
LOOK_SECONDS = 0.05


def models(bench: Bench) -> Numbers:
    """Inferences by turns with peers."""
    # what is not computed yet when a slice ends is not counted: it is to be little of all
    long, longest = bench.seconds, 4 * bench.seconds
    threads = (FASTAPI_ONNX_THREADS,)
    return {
        "small": _asked(
            bench, SMALL, (FASTAPI_ONNX, BARE_ONNX), {FEW_CLIENTS: SLICE_SECONDS}, bench.slices
        ),
        "medium": _asked(
            bench,
            calculating(MEDIUM),
            threads,
            {FEW_CLIENTS: long, MANY_CLIENTS: long},
            bench.repeats,
        ),
        "large": _asked(
            bench,
            calculating(LARGE),
            threads,
            {FEW_CLIENTS: long, MANY_CLIENTS: longest},
            bench.few,
        ),
        "alone": _alone(),
    }


def model_steps(bench: Bench) -> int:
    return 3 * bench.slices + 2 * 2 * (bench.repeats + bench.few)


def _asked(
    bench: Bench,
    model: bytes,
    peers: Sequence[Service],
    slices: Mapping[int, float],
    repeats: int,
) -> Numbers:
    """By turns with peers, which have the same model from a file.

    Args:
        slices: how many seconds a slice takes, by the number of clients.
    """
    path = bench.folder / f"asked-{len(model)}.onnx"
    path.write_bytes(model)
    numbers: Numbers = {}
    with contextlib.ExitStack() as stack:
        running, _ = stack.enter_context(serving_model(bench, model))
        services = {OURS.name: running}
        for peer in peers:
            services[peer.name] = stack.enter_context(
                bench.serving(peer, bench.topic(), 1, BENCH_MODEL=str(path))
            )
        for served in services.values():
            warm_up(served, INFER, max(slices))
            _rest(served)
        for _ in range(repeats):
            for clients, seconds in slices.items():
                of_clients = numbers.setdefault(str(clients), {})
                for name, served in services.items():
                    bench.progress(f"inferences by {name}")
                    of_clients.setdefault(name, []).append(loaded(served, INFER, clients, seconds))
                    _rest(served)
    return numbers


def _rest(served: Running) -> None:
    """Wait until it has computed what was asked last, for those who asked are gone."""
    spent: list[float] = []
    while spent != (now := served.cpu_seconds):
        spent = now
        time.sleep(LOOK_SECONDS)


@contextlib.contextmanager
def serving_model(bench: Bench, model: bytes, **environ: str) -> Iterator[tuple[Running, str]]:
    """This service with a model that a message brought; gives its topic too."""
    topic, state = bench.topic(), message(model)
    bench.send(topic, iter([json.dumps({"state": state}).encode()]))
    cache = bench.folder / f"models-{topic}"
    with bench.serving(
        OURS, topic, shown(state), STATE_LOADER="onnx", MODEL_CACHE_DIR=str(cache), **environ
    ) as served:
        yield served, topic


def shown(state: Mapping[str, Any]) -> dict[str, Any]:
    """What /state says of it."""
    return {name: value for name, value in state.items() if name != "data"}


def _alone() -> float:
    """Runs a second of the small model with the same tensors, and nothing else."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(SMALL, options)
    end = time.perf_counter() + SLICE_SECONDS
    for count in itertools.count():
        if time.perf_counter() > end:
            return count / SLICE_SECONDS
        session.run(["y"], {"x": ROWS})
    raise AssertionError
