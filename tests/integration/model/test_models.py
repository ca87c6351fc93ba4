"""Models that swap themselves, and are asked meanwhile."""

from __future__ import annotations

import concurrent.futures
import contextlib
import shutil
import signal
import socket
import threading

import numpy as np
import pytest
import requests
import tritonclient.http as triton
from onnx import TensorProto
from tritonclient.utils import triton_to_np_dtype as triton_to_numpy

from app.model.loader import MOST_WRONG_ANSWERS
from tests.support import models
from tests.support.model_server import speaking
from tests.support.waiting import eventually


@pytest.fixture
def client():
    """tritonclient, as it comes from PyPI."""
    with contextlib.ExitStack() as opened:

        def connect(program) -> triton.InferenceServerClient:
            opened.enter_context(
                contextlib.closing(
                    client := triton.InferenceServerClient(f"127.0.0.1:{program.port}")
                )
            )
            return client

        yield connect


def asked(x: np.ndarray, datatype: str = "FP32", binary: bool = True) -> list[triton.InferInput]:
    tensor = triton.InferInput("x", list(x.shape), datatype)
    tensor.set_data_from_numpy(x, binary_data=binary)
    return [tensor]


def wanted(binary: bool) -> list[triton.InferRequestedOutput]:
    return [triton.InferRequestedOutput("y", binary_data=binary)]


@pytest.mark.parametrize("binary", [True, False])
def test_tritonclient_asks_the_model(topic, serving, client, binary):
    topic.send_state(models.message(models.adding(5), "v1"))
    with serving() as program:
        eventually(lambda: program.get("/v2/health/ready") is not None)
        triton_client = client(program)
        eventually(triton_client.is_server_ready)
        assert triton_client.is_server_live()
        assert triton_client.is_model_ready("m")
        assert triton_client.is_model_ready("m", "v1")
        assert not triton_client.is_model_ready("m", "v2")
        assert triton_client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
        metadata = triton_client.get_model_metadata("m")
        assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]
        x = np.array([[1, 2], [3, 4]], np.float32)
        answer = triton_client.infer("m", asked(x, binary=binary), outputs=wanted(binary))
        np.testing.assert_array_equal(answer.as_numpy("y"), x + 5)
        assert answer.get_response()["model_version"] == "v1"
        assert triton_client.infer("m", asked(x), request_id="41").get_response()["id"] == "41"


EXACT = {
    "BOOL": (TensorProto.BOOL, [True, False]),
    "UINT8": (TensorProto.UINT8, [0, 255]),
    "UINT16": (TensorProto.UINT16, [0, 65535]),
    "UINT32": (TensorProto.UINT32, [0, 2**32 - 1]),
    "UINT64": (TensorProto.UINT64, [0, 2**64 - 1]),
    "INT8": (TensorProto.INT8, [-128, 127]),
    "INT16": (TensorProto.INT16, [-(2**15), 2**15 - 1]),
    "INT32": (TensorProto.INT32, [-(2**31), 2**31 - 1]),
    "INT64": (TensorProto.INT64, [-(2**63), 2**63 - 1]),
    "FP16": (TensorProto.FLOAT16, [-0.5, 65504]),
    "FP32": (TensorProto.FLOAT, [-0.5, 3.4e38]),
    "FP64": (TensorProto.DOUBLE, [-0.5, 1.7e308]),
    "BYTES": (TensorProto.STRING, ["", "ä"]),
}


@pytest.mark.parametrize("datatype", EXACT)
def test_every_type_of_tensor_passes_through_a_model_unchanged(serve, topic, onnx, datatype):
    onnx_type, values = EXACT[datatype]
    dtype = np.object_ if datatype == "BYTES" else triton_to_numpy(datatype)
    topic.send_state(models.message(models.passing_on(onnx_type)))
    service = serve(topic, **onnx)
    eventually(lambda: service.get("/v2/health/ready").status_code == 200)
    for binary in (True, False):
        if datatype == "FP16" and not binary:
            continue  # the client cannot
        body, size = triton.InferenceServerClient.generate_request_body(
            asked(np.array(values, dtype), datatype, binary), outputs=wanted(binary)
        )
        headers = {"Inference-Header-Content-Length": str(size)} if size else {}
        answer = service.client.post("/v2/models/m/infer", data=body, headers=headers)
        assert answer.status_code == 200, answer.text
        result = triton.InferenceServerClient.parse_response_body(
            answer.data,
            header_length=answer.headers.get("Inference-Header-Content-Length", type=int),
        ).as_numpy("y")
        shown = [v.decode() if isinstance(v, bytes) else v for v in result.tolist()]
        np.testing.assert_array_equal(np.array(shown, dtype), np.array(values, dtype))


@pytest.mark.apache_kafka
def test_two_hundred_swaps_fail_no_request_and_mix_no_versions(topic, serving):
    different = 20  # of a model that comes again the first run is not waited for
    topic.send_state(models.message(models.adding(0), "0"))
    answered: set[str] = set()
    done = threading.Event()

    def ask(port: int) -> int:
        """Ask until all is done; gives how often."""
        count = 0
        body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [0, 0]}]}
        with requests.Session() as session:
            while not done.wait(0.02):  # what is asked for is many swaps, not many requests
                answer = session.post(
                    f"http://127.0.0.1:{port}/v2/models/m/infer", json=body, timeout=5
                )
                assert answer.status_code == 200, answer.text
                number = answer.json()["outputs"][0]["data"][0]
                assert int(answer.json()["model_version"]) % different == number
                answered.add(answer.json()["model_version"])
                count += 1
        return count

    with (
        serving(KAFKA_CONFLATE_MS="5") as program,
        concurrent.futures.ThreadPoolExecutor(4) as clients,
    ):
        program.serves_model("0")
        asking = [clients.submit(ask, program.port) for _ in range(4)]

        def is_answered(version: int) -> bool:
            assert not any(client.done() and client.result() for client in asking)
            return str(version) in answered

        eventually(lambda: is_answered(0))
        try:
            for version in range(1, 201):
                model = models.adding(version % different)
                topic.send_state(models.message(model, str(version)))
                eventually(lambda version=version: is_answered(version))
        finally:
            done.set()
        assert min(client.result() for client in asking) > 100
        assert answered == {str(version) for version in range(201)}
        assert "kafka_state_model_swaps_total 200.0" in program.get("/metrics").text


@pytest.mark.apache_kafka
@pytest.mark.timeout(300)
def test_fifty_swaps_of_a_large_model_stay_within_the_memory_of_two(topic, serving, stored):
    size, little = 50, 25
    different = 4  # of one that comes again the first run is not waited for
    model = bytearray(models.adding(different, megabytes=size))

    def swap(program, version: int) -> None:
        models.renumber(model, (version - 1) % different + 1, version % different + 1)
        topic.send_state(models.message(model, str(version), uri=stored(model)))
        program.serves_model(str(version))

    def megabytes(program) -> float:
        return program.tree()[1].memory_info().rss / 2**20

    with serving(MODEL_CACHE_BYTES=str((different + 1) * size * 2**20)) as program:
        swap(program, 0)
        of_one = megabytes(program)
        for version in range(1, 51):
            swap(program, version)
            eventually(lambda: megabytes(program) < of_one + size + little)
        assert megabytes(program) > of_one + size - little


BAD = {
    "wrong checksum": ({"sha256": "0" * 64}, "checksum", "sha256 is"),
    "no checksum": ({"sha256": None}, "schema", "sha256"),
    "name with a slash": ({"name": "a/b"}, "schema", "name"),
    "both": ({"uri": "file:///x", "data": ""}, "schema", "accepted is one of both"),
    "no base64": ({"data": "*"}, "schema", "base64"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_message_leaves_the_model_before_it(serve, topic, onnx, name):
    changes, reason, words = BAD[name]
    topic.send_state(models.message(models.adding(1), "good"))
    service = serve(topic, **onnx)
    assert service.first_state()["version"] == "good"
    topic.send_state(models.message(models.adding(2), "bad", **changes))
    eventually(lambda: service.status["failed_loads"] == {reason: 1})
    assert service.status["invalid_messages"] == {reason: 1}
    assert words in service.status["last_invalid"]["detail"]
    assert service.first_state()["version"] == "good"
    topic.send_state(models.message(models.adding(3), "better"))
    eventually(lambda: service.get().json["state"]["version"] == "better")


@pytest.fixture
def service(serve, topic, onnx):
    """A service in this process, with a model that adds 5."""
    topic.send_state(models.message(models.adding(5), "v1"))
    service = serve(topic, **onnx)
    service.first_state()
    return service


X = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [0, 0]}


def test_a_model_that_is_not_served_is_404_and_named_with_the_one_that_is(service):
    for path in ("/v2/models/m/versions/v2", "/v2/models/other", "/v2/models/m/versions/v2/ready"):
        answer = service.get(path)
        assert answer.status_code == 404
        assert answer.json.keys() == {"error"}
        assert "served is m v1" in answer.json["error"]
    answer = service.client.post("/v2/models/m/versions/v2/infer", json={"inputs": [X]})
    assert (answer.status_code, answer.json.keys()) == (404, {"error"})


def test_an_answer_names_the_version_that_was_asked_for(service):
    answer = service.client.post("/v2/models/m/versions/v1/infer", json={"inputs": [X]})
    assert answer.json == {
        "model_name": "m",
        "model_version": "v1",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [5, 5]}],
    }


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"inputs": [X | {"name": "z"}]}, 'name of an input is "z"; accepted is one of x'),
        ({"inputs": [X | {"shape": [2]}]}, "shape of input x is [2]; accepted is [-1, 2]"),
        ({"inputs": [X | {"datatype": "INT8"}]}, 'datatype of input x is "INT8"'),
        ({"inputs": []}, "missing are the inputs x"),
        ("nothing", "accepted is an object"),
    ],
)
def test_what_does_not_fit_the_model_is_400_and_says_what_does(service, body, words):
    answer = service.client.post("/v2/models/m/infer", json=body)
    assert (answer.status_code, answer.json.keys()) == (400, {"error"})
    assert words in answer.json["error"]


def test_an_inference_that_memory_does_not_suffice_for_is_503_and_says_when_to_come_again(
    serve, topic, onnx
):
    topic.send_state(models.message(models.filling(), "v1"))
    service = serve(topic, **onnx)
    service.first_state()
    asked = {"name": "x", "datatype": "INT64", "shape": [1], "data": [10**13]}
    answer = service.client.post("/v2/models/m/infer", json={"inputs": [asked]})
    assert (answer.status_code, answer.json.keys()) == (503, {"error"})
    assert answer.headers["Retry-After"] == "1"
    answer = service.client.post("/v2/models/m/infer", json={"inputs": [asked | {"data": [2]}]})
    assert answer.json["outputs"][0]["data"] == [0, 0]


def test_errors_of_http_are_in_the_words_of_the_protocol_too(service):
    for answer, status in (
        (service.client.get("/v2/models/m/infer"), 405),
        (service.client.get("/v2/nothing"), 404),
    ):
        assert (answer.status_code, answer.json.keys()) == (status, {"error"})
    assert service.get("/nothing").mimetype == "application/problem+json"


def test_a_request_that_is_too_large_is_400(topic, serving):
    topic.send_state(models.message(models.adding(5)))
    large = b'{"inputs": []}' + b" " * 1000
    with serving(MODEL_MAX_REQUEST_BYTES="1000") as program:
        program.serves_model("1")
        url = f"http://127.0.0.1:{program.port}/v2/models/m/infer"
        for body in (large, iter([large])):  # with Content-Length, and chunked
            answer = requests.post(url, data=body, timeout=5)
            assert answer.status_code == 400
            assert "larger than MODEL_MAX_REQUEST_BYTES, 1000" in answer.json()["error"]


@pytest.mark.parametrize("framing", [b"Content-Length: 100", b"Transfer-Encoding: chunked"])
def test_a_request_that_breaks_off_is_no_error_of_the_service(topic, serving, framing):
    topic.send_state(models.message(models.adding(5)))
    with serving() as program:
        program.serves_model("1")
        with socket.create_connection(("127.0.0.1", program.port), 5) as client:
            client.sendall(b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\n" + framing)
            client.sendall(b"\r\n\r\n2\r\n{}")
            client.shutdown(socket.SHUT_WR)
            assert client.recv(1000).startswith(b"HTTP/1.1 400 ")
        assert "Traceback" not in program.output


def test_who_sends_half_a_request_keeps_nobody_else_from_being_answered(topic, serving):
    topic.send_state(models.message(models.adding(5)))
    with serving("--threads", "4") as program, contextlib.ExitStack() as opened:
        program.serves_model("1")
        url = f"http://127.0.0.1:{program.port}/v2/models/m/infer"

        def ask() -> requests.Response:
            return requests.post(url, json={"inputs": [X]}, timeout=5)

        halves = [
            opened.enter_context(socket.create_connection(("127.0.0.1", program.port), 5))
            for _ in range(10)
        ]
        for half in halves:
            half.sendall(
                b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"
            )
        eventually(lambda: ask().status_code == 503)
        answer = ask()
        assert answer.headers["Retry-After"] == "1"
        assert answer.json() == {"error": "the limit on waiting requests is reached: 2"}
        assert program.get("/state").ok
        for half in halves:
            half.close()
        eventually(lambda: ask().status_code == 200)


def test_without_a_model_the_state_is_the_initial_one_and_nothing_is_ready(topic, serve, onnx):
    service = serve(topic, **onnx)
    assert service.first_state() == 0
    ready = service.get("/readyz")
    assert ready.status_code == 503
    assert ready.json["detail"] == "no model yet: the topic holds no valid message"
    assert service.get("/v2/health/live").json == {"live": True}
    for path in ("/v2/health/ready", "/v2/models/m", "/v2/models/m/ready"):
        answer = service.get(path)
        assert answer.status_code == 503
        assert answer.json == {"error": "no model yet: the topic holds no valid message"}
    answer = service.client.post("/v2/models/m/infer", json={"inputs": [X]})
    assert answer.status_code == 503


def test_the_state_shows_the_models_fields_and_no_data(topic, serve, onnx):
    state = models.message(models.adding(5), "v1", trained="today")
    topic.send_state(state)
    shown = serve(topic, **onnx).first_state()
    assert shown == {name: value for name, value in state.items() if name != "data"}


@pytest.mark.parametrize(
    ("model", "reason", "words"),
    [
        pytest.param(b"junk", "model", "", id="junk"),
        pytest.param(models.adding(2)[:100], "model", "", id="truncated"),
        pytest.param(models.adding(2, megabytes=0.5), "size", "500000", id="too large"),
        pytest.param(models.with_external_data(), "external_data", "one file", id="external"),
        pytest.param(models.passing_on(TensorProto.FLOAT8E4M3FN), "model", "float8", id="type"),
        pytest.param(models.ending_its_process(), "model", "SIGFPE", id="ends its process"),
    ],
)
@pytest.mark.parametrize("inline", [True, False])
def test_a_bad_model_leaves_the_one_before_it(service, topic, stored, model, reason, words, inline):
    uri = None if inline else stored(model)
    producer = topic.new_producer(**{"message.max.bytes": 10**8})
    topic.send_state(models.message(model, "bad", uri=uri), producer=producer)
    # what came from elsewhere may be smaller the next time
    fetches = MOST_WRONG_ANSWERS if reason == "size" and not inline else 1
    eventually(lambda: service.status["failed_loads"] == {reason: fetches})
    assert words in service.status["last_invalid"]["detail"]
    assert service.first_state()["version"] == "v1"
    counted = f'kafka_state_failed_loads_total{{reason="{reason}"}} {fetches}.0'
    assert counted in service.get("/metrics").text


@pytest.mark.parametrize(
    "uri", ["file:///etc/passwd", "https://example.com/model.onnx", "{folder}/../x", "nonsense"]
)
def test_a_uri_that_is_not_allowed_is_refused_though_its_model_is_here(
    service, topic, tmp_path, uri
):
    uri = uri.format(folder=f"file://{tmp_path}")
    topic.send_state(models.message(models.adding(5), "bad", uri=uri))
    eventually(lambda: service.status["failed_loads"] == {"uri": 1})
    assert service.first_state()["version"] == "v1"


def test_a_model_that_is_not_there_yet_is_served_as_soon_as_it_is(service, topic, tmp_path, stored):
    model = models.adding(2)
    uri = f"file://{tmp_path}/model.onnx"
    topic.send_state(models.message(model, "late", uri=uri))
    eventually(lambda: service.status["failed_loads"].get("gone", 0) > 1)
    assert service.status["pending"][0]["reason"] == "gone"
    assert service.first_state()["version"] == "v1"
    assert stored(model) == uri
    eventually(lambda: service.first_state()["version"] == "late")
    assert service.status["pending"] == []


def test_a_model_that_never_ends_leaves_the_one_before_it_and_the_next_one_its_turn(topic, serving):
    topic.send_state(models.message(models.adding(1), "1"))
    # enough for one that ends, also on a busy machine, which this one does not keep busy alone
    with serving(MODEL_LOAD_SECONDS="5", MODEL_THREADS="1") as program:
        program.serves_model("1")
        topic.send_state(models.message(models.never_ending(), "2"))

        def is_tried_again() -> bool:
            return program.get("/status").json()["failed_loads"].get("slow", 0) > 1

        eventually(is_tried_again, within=30)
        program.serves_model("1")
        topic.send_state(models.message(models.adding(3), "3"))
        program.serves_model("3")
        assert program.get("/status").json()["pending"] == []


@pytest.mark.parametrize("end", [signal.SIGHUP, signal.SIGKILL])
def test_a_new_worker_serves_the_model_before_while_the_newest_is_fetched(
    topic, serving, stored, end
):
    model = models.adding(1)
    topic.send_state(models.message(model, "1", uri=stored(model)))
    is_asked = threading.Semaphore(0)

    def say_nothing(connection) -> None:
        is_asked.release()
        connection.wait_until_closed()

    with (
        speaking(say_nothing) as uri,
        serving(MODEL_URI_PREFIXES=f"{uri},{stored(model)}") as program,
    ):
        program.serves_model("1")
        before = program.tree()[1]
        topic.send_state(models.message(models.adding(2), "2", uri=f"{uri}/2.onnx"))
        assert is_asked.acquire(timeout=10)
        if end == signal.SIGHUP:
            program.process.send_signal(end)
        else:
            before.kill()
        before.wait(10)
        program.serves_model("1")
        assert is_asked.acquire(timeout=10)
        assert [p["offset"] for p in program.get("/status").json()["pending"]] == [1]


def test_a_start_serves_the_model_before_while_the_newest_is_tried_out(topic, serving):
    topic.send_state(models.message(models.adding(1), "1"))
    with serving() as program:
        program.serves_model("1")
    topic.send_state(models.message(models.never_ending(), "2"))
    with serving(MODEL_THREADS="1") as program:
        program.serves_model("1")
        assert [p["offset"] for p in program.get("/status").json()["pending"]] == [1]


def test_a_restart_needs_not_fetch_again(topic, serving, stored, tmp_path):
    model = models.adding(2)
    topic.send_state(models.message(model, "1", uri=stored(model)))
    with serving() as program:
        program.serves_model("1")
    (tmp_path / "model.onnx").unlink()
    with serving() as program:
        program.serves_model("1")


def test_metrics_tell_what_is_served_and_asked(service, topic):
    body = {"inputs": [X | {"shape": [3, 2], "data": [0] * 6}]}
    assert service.client.post("/v2/models/m/infer", json=body).status_code == 200
    text = service.get("/metrics").text
    assert 'kafka_state_model_info{name="m",version="v1"} 1.0' in text
    assert "kafka_state_model_batch_size_sum 3.0" in text
    assert "kafka_state_model_inference_seconds_count 1.0" in text
    topic.send_state(models.message(models.adding(6), "v2"))
    eventually(lambda: service.first_state()["version"] == "v2")
    text = service.get("/metrics").text
    assert 'kafka_state_model_info{name="m",version="v2"} 1.0' in text
    assert 'kafka_state_model_info{name="m",version="v1"}' not in text
    assert "kafka_state_model_swaps_total 1.0" in text


def test_workers_of_a_preloaded_application_share_what_one_has_fetched(
    topic, serving, stored, cache
):
    shutil.rmtree(cache)
    uri = stored(models.adding(2))
    topic.send_state(models.message(models.adding(2), "1", uri=uri))
    with serving("--preload", "--workers", "2") as program:
        program.serves_model("1")

        def are_all_answered() -> bool:
            """By both workers, of which one may be ready before the other."""
            url = f"http://127.0.0.1:{program.port}/v2/models/m/infer"
            answers = [requests.post(url, json={"inputs": [X]}, timeout=5) for _ in range(20)]
            return [answer.status_code for answer in answers] == [200] * 20

        eventually(are_all_answered)
        assert [path.name for path in cache.rglob("*.onnx")] == ["model.onnx"]
