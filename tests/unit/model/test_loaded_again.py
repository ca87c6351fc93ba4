"""What the loader makes of the models that are loaded already."""

from __future__ import annotations

import gc
import os
import weakref

import numpy as np
import pytest

from app.message import StateMessage
from app.message_errors import InvalidMessage, RetryableError
from app.model import trial
from app.model.loader import OnnxLoader
from app.model.model import Model
from tests.support import models

MEBIBYTE = 2**20


@pytest.fixture
def serve(tmp_path):
    """Load what adds the number of its version, from a file, and serve it."""

    def serve(loader: OnnxLoader, version: int, **changes: str) -> Model:
        path, content = tmp_path / "model.onnx", models.adding(version)
        path.write_bytes(content)
        state = models.message(content, str(version), uri=f"file://{path}", **changes)
        model = loader(StateMessage(state))
        path.unlink()
        loader.versions.serve(model)
        return model

    return serve


@pytest.fixture
def loading(loader, tmp_path):
    """A loader of files, with variables that come on top."""
    return lambda **environ: loader(MODEL_URI_PREFIXES=f"file://{tmp_path}/", **environ)


def loaded(load: OnnxLoader) -> list[str]:
    return [model.version for model in load.versions.loaded]


def computed(model: Model) -> float:
    return model.infer({"x": np.zeros((1, 2), np.float32)}, ["y"])["y"][0, 0]


def of_nowhere(number: int, tmp_path, as_version: str = "", **changes: str) -> StateMessage:
    uri, version = f"file://{tmp_path}/nowhere.onnx", as_version or str(number)
    return StateMessage(models.message(models.adding(number), version, uri=uri, **changes))


def test_one_that_is_sent_again_needs_neither_its_file_nor_the_cache(loading, serve, tmp_path):
    load = loading()
    for version in (1, 2):
        serve(load, version)
    for path in tmp_path.rglob("*.onnx"):
        path.unlink()
    for version in (1, 2, 2):  # kept, kept, served
        model = load(of_nowhere(version, tmp_path, trained="again"))
        assert (model.version, computed(model)) == (str(version), version)
        assert model.representation["trained"] == "again"
        load.versions.serve(model)
    with pytest.raises(RetryableError, match="is not there"):
        load(of_nowhere(3, tmp_path))


def test_the_same_bytes_of_another_version_are_not_loaded_again(loading, serve, tmp_path):
    load = loading()
    serve(load, 1)
    again = load(of_nowhere(1, tmp_path, as_version="other"))
    assert (again.version, computed(again)) == ("other", 1)


def test_one_that_is_sent_again_is_not_removed_from_the_disk_before_others(
    loading, serve, tmp_path
):
    load = loading()
    serve(load, 1)
    (cached,) = tmp_path.rglob("*.onnx")
    os.utime(cached, (0, 0))
    load(of_nowhere(1, tmp_path))
    assert cached.stat().st_mtime > 0


@pytest.mark.parametrize(
    "content", [b"junk", models.ending_its_process()], ids=["junk", "ends its process"]
)
def test_what_is_no_model_costs_none_that_is_kept(loading, serve, content):
    load = loading()
    for version in (1, 2):
        serve(load, version)
    with pytest.raises(InvalidMessage):
        load(StateMessage(models.message(content, "3")))
    assert loaded(load) == ["2", "1"]


@pytest.mark.parametrize(("most", "left"), [("0", ["2"]), ("1", ["2"]), ("2", ["2", "1"])])
def test_while_one_is_loaded_there_are_no_more_than_later(loading, serve, monkeypatch, most, left):
    load = loading(MODEL_KEEP_VERSIONS=most)
    for version in (1, 2):
        serve(load, version)
    seen = []

    def note(*args):
        seen.append(loaded(load))
        return real(*args)

    real = Model.load
    monkeypatch.setattr(Model, "load", note)
    serve(load, 3)
    assert seen == [left]


def test_where_memory_does_not_suffice_to_try_one_out_what_is_kept_is_let_go(
    loading, serve, monkeypatch, caplog
):
    load = loading()
    for version in (1, 2):
        serve(load, version)
    # as if what is kept were larger
    monkeypatch.setattr(
        trial, "free_memory", lambda: (10 if load.versions.loaded[1:] else 1000) * MEBIBYTE
    )
    large = models.adding(3, megabytes=50)
    load.versions.serve(load(StateMessage(models.message(large, "3"))))
    assert loaded(load) == ["3", "2"]
    assert "no longer kept: 1" in caplog.text


def test_where_memory_does_not_suffice_to_load_one_it_is_loaded_again_without_what_is_kept(
    loading, serve, monkeypatch
):
    load = loading(MODEL_KEEP_VERSIONS="5")
    for version in (1, 2, 3):
        serve(load, version)
    kept = [weakref.ref(model) for model in load.versions.loaded[1:]]
    in_vain: list[weakref.ref[set[int]]] = []

    def lack_memory(*args):
        half = {1}
        in_vain.append(weakref.ref(half))
        raise RetryableError("memory", "there is none")

    def lack_memory_at_first(*args):
        if in_vain:
            assert [model() for model in (*in_vain, *kept)] == [None, None, None]
            return real(*args)
        return lack_memory()

    gc.disable()  # nothing is to wait for it
    real = Model.load
    monkeypatch.setattr(Model, "load", lack_memory_at_first)
    try:
        serve(load, 4)
    finally:
        gc.enable()
    assert loaded(load) == ["4", "3"]
    monkeypatch.setattr(Model, "load", lack_memory)
    for tries in (2, 1):  # the second time there is nothing to let go
        in_vain.clear()
        with pytest.raises(RetryableError, match="there is none"):
            serve(load, 5)
        assert len(in_vain) == tries
        assert loaded(load) == ["4"]


def test_what_is_wrong_otherwise_costs_none_that_is_kept(loading, serve, tmp_path, monkeypatch):
    load = loading()
    for version in (1, 2):
        serve(load, version)
    monkeypatch.setattr(trial.sys, "executable", "/nowhere/python")
    load._trials.close()
    for message in (of_nowhere(3, tmp_path), StateMessage(models.message(models.adding(4), "4"))):
        with pytest.raises(RetryableError):
            load(message)
    assert loaded(load) == ["2", "1"]
