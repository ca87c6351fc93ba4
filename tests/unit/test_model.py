"""A model by itself, with the real onnxruntime."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import psutil
import pytest
from onnx import TensorProto

from app.loading import InvalidMessage, StateMessage
from app.model.loader import OnnxLoader
from app.model.model import Model, cores
from app.model.settings import ModelSettings
from tests import models

SHOWN = {"name": "m", "version": "1"}


@pytest.fixture
def load(tmp_path):
    def load(content: bytes, threads: int = 1) -> Model:
        path = tmp_path / "model.onnx"
        path.write_bytes(content)
        return Model.load(path, SHOWN, threads)

    return load


@pytest.fixture
def loader(tmp_path):
    def loader(**environ: str) -> OnnxLoader:
        settings = ModelSettings.from_environ(
            {"MODEL_CACHE_DIR": str(tmp_path), **environ}, is_used=True
        )
        return OnnxLoader(settings)

    return loader


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
        pytest.param(models.passing_on(TensorProto.BFLOAT16), id="a type the protocol has not"),
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


def test_has_as_many_threads_as_it_is_told(load):
    def threads() -> int:
        return psutil.Process().num_threads()

    before = threads()
    kept = [load(models.adding(5), threads=1)]
    assert threads() == before
    kept.append(load(models.adding(5), threads=4))
    assert threads() == before + 3  # beside the one that asks


def test_requests_at_once_use_no_more_threads_than_there_are_cores(loader, monkeypatch):
    told = []
    monkeypatch.setattr(Model, "load", lambda path, shown, threads: told.append(threads))
    message = StateMessage(models.message(models.adding(5)))
    one_by_one, many, as_told = loader(), loader(), loader(MODEL_THREADS="3")
    many.requests_at_once = 1000
    for load in (one_by_one, many, as_told):
        load(message)
    assert told == [cores(), 1, 3]


def test_onnxruntime_tells_its_maker_nothing():
    """Its first report is of its import, which makes files for them."""
    program = "import app.model.model, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    environ = {name: value for name, value in os.environ.items() if not name.startswith("ORT_")}
    told = subprocess.run(
        [sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True
    )
    assert told.stdout == "1\n"
