"""A model by itself, with the real onnxruntime."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
from onnx import TensorProto
from onnxruntime import RunOptions

from app.message import StateMessage
from app.message_errors import InvalidMessage, RetryableError
from app.model.loader import MOST_WRONG_ANSWERS, cores
from app.model.model import SHRINK, Limits, Model
from app.model.tensors import read_request
from app.settings import SettingsError
from tests.support import model_server, models

SHOWN = {"name": "m", "version": "1"}


@pytest.fixture
def load(tmp_path):
    def load(content: bytes, threads: int = 1) -> Model:
        path = tmp_path / "model.onnx"
        path.write_bytes(content)
        return Model.load(path, SHOWN, Limits(threads, request_bytes=1000))

    return load


def test_computes_after_its_file_is_gone(load, tmp_path):
    model = load(models.adding(5))
    (tmp_path / "model.onnx").unlink()
    computed = model.infer({"x": np.zeros((1, 2), np.float32)}, ["y"])
    np.testing.assert_array_equal(computed["y"], [[5, 5]])


def test_what_it_cannot_compute_is_a_value_error(load):
    with pytest.raises(ValueError, match="INVALID_ARGUMENT"):
        load(models.adding(5)).infer({"x": np.zeros((1, 3), np.float32)}, ["y"])


def test_one_that_cannot_be_warmed_up_with_dimensions_of_one_is_served_all_the_same(load, caplog):
    model = load(models.taking_rows_of_two_only())
    assert "m 1 is not warmed up" in caplog.text
    computed = model.infer({"x": np.zeros((1, 2), np.float32)}, ["y"])
    np.testing.assert_array_equal(computed["y"], [[1, 1]])


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"junk", id="junk"),
        pytest.param(b"", id="nothing"),
        pytest.param(models.passing_on(TensorProto.FLOAT8E4M3FN), id="a type the protocol has not"),
        pytest.param(models.of_many(251), id="no request is as large as its input"),
        pytest.param(models.as_bytes([], [], []), id="no output"),
    ],
)
def test_what_is_no_model_is_invalid(load, content):
    with pytest.raises(InvalidMessage) as raised:
        load(content)
    assert raised.value.reason == "model"


@pytest.mark.parametrize("datatype", [TensorProto.BOOL, TensorProto.STRING, TensorProto.INT8])
def test_models_of_other_types_are_warmed_up_too(load, datatype, caplog):
    load(models.passing_on(datatype))
    assert "not warmed up" not in caplog.text


def test_computes_with_bfloat16_and_warms_up_with_it(load, caplog):
    model = load(models.passing_on(TensorProto.BFLOAT16))
    assert not caplog.records
    given = np.array([0x3FC0, 0xC000, 0x7F80], np.uint16).view("V2")  # 1.5, -2, infinity
    computed = model.infer({"x": given}, ["y"])["y"]
    assert computed.dtype == given.dtype
    assert computed.tobytes() == given.tobytes()


def test_computes_with_bfloat16_beside_other_types(load):
    model = load(models.rounding_to_bfloat16())
    given = {"x": np.array([1.5, -2], np.float32)}
    computed = model.infer(given, ["y", "x_again"])
    assert computed["y"].tobytes() == np.array([0x3FC0, 0xC000], np.uint16).tobytes()
    np.testing.assert_array_equal(computed["x_again"], given["x"])


def test_one_whose_input_fills_a_request_can_be_asked(load):
    assert load(models.of_many(250)).inputs[0].shape == (250,)


def test_one_that_does_not_say_how_many_dimensions_it_takes_takes_any(load):
    model = load(models.of_any_rank())
    for array in (np.float32(2), np.ones((1, 3), np.float32)):
        body = json.dumps({"inputs": [_described(array)]}).encode()
        inputs = read_request(body, None, model.inputs, model.outputs).inputs
        np.testing.assert_array_equal(model.infer(inputs, ["y"])["y"], -array)


def _described(array):
    data = array.ravel().tolist()
    return {"name": "x", "datatype": "FP32", "shape": list(np.shape(array)), "data": data}


@pytest.mark.parametrize("threads", [1, 4])
def test_has_as_many_threads_as_it_is_told(own_process, tmp_path, threads):
    path = tmp_path / "model.onnx"
    path.write_bytes(models.adding(5))
    more = own_process.submit(threads_that_come_with, path, threads)
    assert more.result(60) == threads - 1  # beside the one that asks


def threads_that_come_with(path: Path, threads: int) -> int:
    before = psutil.Process().num_threads()
    model = Model.load(path, SHOWN, Limits(threads, request_bytes=1000))
    assert model.inputs
    return psutil.Process().num_threads() - before


def test_requests_at_once_use_no_more_threads_than_there_are_cores(loader, monkeypatch):
    told = []
    monkeypatch.setattr(
        Model, "load", lambda path, representation, limits: told.append(limits.threads)
    )
    message = StateMessage(models.message(models.adding(5)))
    one_by_one, many, as_told = loader(), loader(), loader(MODEL_THREADS="3")
    many.share_machine(2, 500)
    for load in (one_by_one, many, as_told):
        load(message)
    assert told == [cores(), 1, 3]


@pytest.mark.parametrize(
    "change", [{"uri": None}, {"sha256": str.upper}, {"trained_on": None}], ids=str
)
def test_a_member_that_is_null_is_absent_and_a_checksum_may_be_in_capitals(loader, change):
    message = models.message(models.adding(5))
    for name, value in change.items():
        message[name] = value(message[name]) if callable(value) else value
    model = loader()(StateMessage(message))
    assert model.representation["sha256"] == models.message(models.adding(5))["sha256"]
    assert "uri" not in model.representation


@pytest.mark.parametrize("is_loaded", [False, True])
@pytest.mark.parametrize(
    ("changes", "environ", "reason"),
    [
        ({"data": base64.b64encode(models.adding(6)).decode()}, {}, "checksum"),
        ({"data": "*"}, {}, "schema"),
        ({}, {"MODEL_MAX_BYTES": "10"}, "size"),
        ({"data": None, "uri": "https://example.com/model.onnx"}, {}, "uri"),
    ],
)
def test_a_message_is_refused_also_where_its_model_is_in_the_cache_or_loaded(
    loader, changes, environ, reason, is_loaded
):
    state = models.message(models.adding(5))
    model, load = loader()(StateMessage(state)), loader(**environ)
    if is_loaded:
        load.versions.serve(model)
    changed = {name: value for name, value in (state | changes).items() if value is not None}
    with pytest.raises(InvalidMessage) as raised:
        load(StateMessage(changed))
    assert raised.value.reason == reason


def test_one_that_is_larger_than_may_be_now_is_refused_though_it_is_in_the_cache(loader, tmp_path):
    (tmp_path / "model.onnx").write_bytes(models.adding(5))
    uri = f"file://{tmp_path}/model.onnx"
    message = StateMessage(models.message(models.adding(5), uri=uri))
    loader(MODEL_URI_PREFIXES=uri)(message)
    with pytest.raises(InvalidMessage, match="MODEL_MAX_BYTES, 10"):
        loader(MODEL_URI_PREFIXES=uri, MODEL_MAX_BYTES="10")(message)


def test_does_not_wait_longer_for_another_process_than_that_may_take(loader, tmp_path):
    state = models.message(models.adding(5))
    load = loader(MODEL_FETCH_SECONDS="1", MODEL_LOAD_SECONDS="1")
    with (tmp_path / f"{state['sha256']}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(RetryableError) as raised:
            load(StateMessage(state))
    assert raised.value.reason == "slow"
    assert loader()(StateMessage(state)).version == "1"


def test_cached_is_what_needs_neither_be_fetched_nor_tried_out(loader, tmp_path):
    uri = f"file://{tmp_path}/model.onnx"
    load = loader(MODEL_URI_PREFIXES=uri)
    at_uri = StateMessage(models.message(models.adding(5), uri=uri))
    assert not load.is_cached(at_uri)
    assert load.is_cached(StateMessage("nonsense"))
    inline = StateMessage(models.message(models.adding(5)))
    assert not load.is_cached(inline)
    load(inline)
    assert load.is_cached(inline)
    assert load.is_cached(at_uri)


def test_what_is_no_model_is_not_kept(loader, tmp_path):
    with pytest.raises(InvalidMessage):
        loader()(StateMessage(models.message(b"junk")))
    assert not list(tmp_path.rglob("*.onnx"))


def test_onnxruntime_tells_its_maker_nothing():
    """Its first report is of its import, which makes files for them."""
    program = "import app.model.model, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    environ = {name: value for name, value in os.environ.items() if not name.startswith("ORT_")}
    told = subprocess.run(
        [sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True
    )
    assert told.stdout == "1\n"


def fetched(uri: str, content: bytes) -> StateMessage:
    return StateMessage(
        {
            "name": "m",
            "version": "1",
            "sha256": hashlib.sha256(content).hexdigest(),
            "uri": f"{uri}/m.onnx",
        }
    )


# a proxy may be behind, or ask to log in; the object may have been replaced while it was read
WRONG_ANSWERS = {
    "checksum": models.adding(4),
    "size": bytes(1_000_000),
    "uri": (302, {"Location": "https://example.com/login"}, b""),
}


@pytest.mark.parametrize("reason", WRONG_ANSWERS)
def test_what_is_wrong_with_what_a_server_sent_may_be_right_the_next_time(loader, reason):
    content = models.adding(5)
    with model_server.serving({"/m.onnx": WRONG_ANSWERS[reason]}) as server:
        load = loader(MODEL_URI_PREFIXES=f"{server.uri}/", MODEL_MAX_BYTES="900000")
        for _ in range(2):
            with pytest.raises(RetryableError) as raised:
                load(fetched(server.uri, content))
            assert raised.value.reason == reason
        server.answers["/m.onnx"] = content
        assert load(fetched(server.uri, content)).name == "m"


@pytest.mark.parametrize("reason", WRONG_ANSWERS)
def test_what_is_wrong_with_what_a_server_sent_makes_the_message_invalid_after_some_tries(
    loader, reason
):
    content = models.adding(5)
    with model_server.serving({"/m.onnx": WRONG_ANSWERS[reason]}) as server:
        load = loader(MODEL_URI_PREFIXES=f"{server.uri}/", MODEL_MAX_BYTES="900000")
        for _ in range(MOST_WRONG_ANSWERS - 1):
            with pytest.raises(RetryableError):
                load(fetched(server.uri, content))
        with pytest.raises(InvalidMessage) as raised:
            load(fetched(server.uri, content))
        assert raised.value.reason == reason


@pytest.fixture
def nobody():
    """Who may read little; root may read everything."""
    own = os.geteuid()
    if own == 0:
        os.seteuid(65534)
    yield
    os.seteuid(own)


def test_a_cache_that_cannot_be_written_to_ends_the_start(loader, tmp_path, nobody):
    closed = tmp_path / "closed"
    if os.geteuid() == os.getuid():
        closed.mkdir(mode=0o000)
    with pytest.raises(SettingsError, match=r"MODEL_CACHE_DIR is .*closed.*Permission denied"):
        loader(MODEL_CACHE_DIR=str(closed))


def test_a_cache_that_cannot_be_read_makes_no_model_invalid(loader, tmp_path):
    folder = tmp_path / "cache"
    message = StateMessage(models.message(models.adding(5)))
    load = loader(MODEL_CACHE_DIR=str(folder))
    folder.rmdir()
    folder.touch()
    for ask in (load.is_cached, load):
        with pytest.raises(RetryableError, match=r"cache: (Not a directory|File exists)") as raised:
            ask(message)
        assert raised.value.reason == "disk"


def test_what_takes_more_memory_than_there_is_is_no_fault_of_the_request(load):
    model = load(models.filling())
    with pytest.raises(MemoryError):
        model.infer({"x": np.array([10**13])}, ["y"])
    with pytest.raises(ValueError, match="must be >= 0"):
        model.infer({"x": np.array([-5])}, ["y"])
    assert len(model.infer({"x": np.array([3])}, ["y"])["y"]) == 3


def test_under_another_name_it_is_the_same_and_gives_back_what_the_other_took(load):
    model = load(models.filling())
    again = model.named({"name": "again", "version": "2"})
    assert [(m.name, m.version) for m in (model, again)] == [("m", "1"), ("again", "2")]
    assert again.inputs == model.inputs

    def gives_back() -> bool:
        options = RunOptions()
        again.infer({"x": np.array([3])}, ["y"], options)
        try:
            return options.get_run_config_entry(SHRINK[0]) == SHRINK[1]
        except RuntimeError:  # it has none
            return False

    assert [gives_back(), gives_back()] == [False, False]
    model.infer({"x": np.array([10**6])}, ["y"])
    assert [gives_back(), gives_back()] == [True, False]
