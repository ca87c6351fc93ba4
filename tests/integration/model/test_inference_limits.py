"""What one inference may take: of the time, of the memory, and of others' patience."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import re
import socket
import time

import numpy as np
import psutil
import pytest
import requests
from onnx import TensorProto

from tests.support import models
from tests.support.tensors import binary_tensor, tensor
from tests.support.waiting import eventually

FOR_EVER = {"inputs": [tensor([2**62], [1], "INT64")]}
FOR_A_MOMENT = {"inputs": [tensor([2], [1], "INT64")]}
TOKEN = "a-token-of-the-test"
LARGE = np.ones((500_000, 2), np.float32)


def ask(program, request, **options) -> requests.Response:
    url = f"http://127.0.0.1:{program.port}/v2/models/m/infer"
    if isinstance(request, bytes):
        return requests.post(url, data=request, timeout=60, **options)
    return requests.post(url, json=request, timeout=60, **options)


def as_json(x: np.ndarray) -> bytes:
    return json.dumps({"inputs": [tensor(x.tolist(), x.shape)]}).encode()


@contextlib.contextmanager
def beginning(program, size: int, sent: bytes):
    """A client that has sent a part of its body, of which the head says the size."""
    with socket.create_connection(("127.0.0.1", program.port), 30) as client:
        head = f"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n"
        client.sendall(head.encode() + sent)
        yield client


def worker_of(program) -> psutil.Process:
    (worker,) = psutil.Process(program.process.pid).children()
    return worker


def is_computing(program) -> bool:
    """Whether the worker is busy, on a machine where others may be too."""
    return worker_of(program).cpu_percent(0.3) > 10


@pytest.mark.parametrize("timeout", ["30", "3"])
def test_an_inference_that_takes_too_long_is_504_and_ended(topic, serving, timeout):
    topic.send_state(models.message(models.looping()))
    with serving("--timeout", timeout, MODEL_INFER_SECONDS="4") as program:
        program.serves_model("1")
        with concurrent.futures.ThreadPoolExecutor() as pool:
            too_long = pool.submit(ask, program, FOR_EVER)
            eventually(lambda: is_computing(program))
            assert ask(program, FOR_A_MOMENT).json()["outputs"][0]["data"] == [2]
            answer = too_long.result()
        assert answer.status_code == 504
        assert answer.json() == {"error": "not computed within MODEL_INFER_SECONDS, 4"}
        eventually(lambda: not is_computing(program))
        counted = program.get("/metrics").text
        assert 'status="504"} 1.0' in counted
        # from the request's beginning on, whoever answers it
        (seconds,) = re.findall(
            r'http_request_duration_seconds_sum\{.*infer",status="504"\} (.*)', counted
        )
        assert float(seconds) > 3


def test_an_inference_is_ended_when_its_client_has_left(topic, serving):
    topic.send_state(models.message(models.looping()))
    body = json.dumps(FOR_EVER).encode()
    with serving() as program:
        program.serves_model("1")
        with beginning(program, len(body), body):
            eventually(lambda: is_computing(program))
        eventually(lambda: not is_computing(program))
        eventually(lambda: 'status="499"} 1.0' in program.get("/metrics").text)
        assert "Traceback" not in program.output


def test_beyond_what_requests_may_hold_the_next_is_503_and_says_when_to_come_again(topic, serving):
    topic.send_state(models.message(models.adding(5)))
    held = b"1" * 60_000
    # for two bodies of which not more than this has come
    with serving(MODEL_MAX_HELD_BYTES="530000") as program, contextlib.ExitStack() as opened:
        program.serves_model("1")
        for _ in range(2):
            opened.enter_context(beginning(program, 10**6, held))
        small = as_json(LARGE[:1])

        def is_refused() -> bool:
            return ask(program, small).status_code == 503

        eventually(is_refused)
        answer = ask(program, small)
        assert answer.headers["Retry-After"] == "1"
        assert re.match(
            "requests hold .* bytes, and this one needs .* more; accepted are "
            "MODEL_MAX_HELD_BYTES, 530000",
            answer.json()["error"],
        )
        assert program.get("/state").ok
        opened.close()
        eventually(lambda: ask(program, small).status_code == 200)


def test_who_is_refused_in_the_middle_of_a_body_is_told_all_the_same(topic, serving):
    topic.send_state(models.message(models.adding(5)))
    with serving(MODEL_MAX_HELD_BYTES="1000000") as program:
        program.serves_model("1")
        small = as_json(LARGE[:1])
        with contextlib.ExitStack() as opened:
            opened.enter_context(beginning(program, 10**7, b"1" * 900_000))
            eventually(lambda: ask(program, small).status_code == 503)
            client = opened.enter_context(beginning(program, 10**7, b""))
            # most clients look for an answer only when they have sent their request
            for _ in range(70):
                client.sendall(b"1" * 100_000)
                time.sleep(0.1)  # longer than a connection that is closed here waits for its client
            assert client.recv(1000).startswith(b"HTTP/1.1 503 ")


def test_many_large_requests_at_once_are_all_answered_and_take_no_more_than_they_may(
    topic, serving
):
    topic.send_state(models.message(models.passing_on(TensorProto.FLOAT)))
    body = as_json(LARGE.ravel())
    with (
        serving(MODEL_MAX_HELD_BYTES="60MB", MODEL_THREADS="1") as program,
        concurrent.futures.ThreadPoolExecutor(16) as pool,
    ):
        program.serves_model("1")
        worker = worker_of(program)
        before = worker.memory_info().rss
        answers = [pool.submit(ask, program, body) for _ in range(32)]
        most = 0
        while not all(answer.done() for answer in answers):
            most = max(most, worker.memory_info().rss - before)
            time.sleep(0.01)
        told = [answer.result() for answer in answers]
        assert {answer.status_code for answer in told} <= {200, 503}
        served = [answer for answer in told if answer.ok]
        assert served
        assert all(answer.json()["outputs"][0]["data"] == [1.0] * LARGE.size for answer in served)
        assert all("Retry-After" in answer.headers for answer in told if not answer.ok)
        # memory that is free and not returned yet comes on top
        assert most < 3 * 60e6


def test_the_memory_of_a_large_request_is_given_back(topic, serving):
    topic.send_state(models.message(models.adding(1)))
    with serving(MODEL_MAX_REQUEST_BYTES="100MB") as program:
        program.serves_model("1")
        worker = worker_of(program)
        ask(program, as_json(LARGE[:1]))
        before = worker.memory_info().rss
        large = np.ones((4_000_000, 2), np.float32)
        head = {
            "inputs": [binary_tensor(large.nbytes, large.shape)],
            "parameters": {"binary_data_output": True},
        }
        text = json.dumps(head).encode()
        answer = ask(
            program,
            text + large.tobytes(),
            headers={"Inference-Header-Content-Length": str(len(text))},
        )
        assert len(answer.content) > large.nbytes

        def is_given_back() -> bool:
            ask(program, as_json(LARGE[:1]))  # the outputs are freed by the next run
            return worker.memory_info().rss - before < large.nbytes / 2

        eventually(is_given_back)


def test_the_memory_of_a_large_answer_to_a_small_request_is_given_back(topic, serving):
    topic.send_state(models.message(models.filling()))
    with serving() as program:
        program.serves_model("1")
        worker = worker_of(program)

        def fill(count: int) -> requests.Response:
            inputs = [tensor([count], [1], "INT64")]
            return ask(program, {"inputs": inputs, "parameters": {"binary_data_output": True}})

        fill(1)
        before = worker.memory_info().rss
        size = 4 * 10**7
        assert len(fill(size // 4).content) > size
        assert fill(10**13).status_code == 503  # there is not so much memory
        assert len(fill(size // 4).content) > size

        def is_given_back() -> bool:
            fill(1)
            return worker.memory_info().rss - before < size / 2

        eventually(is_given_back)
        assert "onnxruntime" not in program.output  # what it says of the error is in the answer


def test_an_inference_has_the_headers_that_every_answer_has(topic, serving):
    topic.send_state(models.message(models.adding(1)))
    with serving(API_TOKEN=TOKEN) as program:
        eventually(lambda: (answer := program.get("/v2/health/ready")) and answer.ok)
        # by the way around Flask, and by the one through it
        plain, other = (
            ask(
                program,
                as_json(LARGE[:1]),
                headers={"Authorization": f"{kind} {TOKEN}"},
            )
            for kind in ("Bearer", "bearer")
        )
        assert plain.status_code == other.status_code == 200
        assert dict(plain.headers) == dict(other.headers) | {"Date": plain.headers["Date"]}
        assert plain.content == other.content
        for headers in ({}, {"Authorization": "Bearer another"}):
            answer = ask(program, as_json(LARGE[:1]), headers=headers)
            assert answer.status_code == 401
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")
