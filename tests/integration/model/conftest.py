"""Programs that serve models."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from app.message import StateMessage
from app.model.loader import OnnxLoader
from app.settings.model import ModelSettings
from tests.support import models
from tests.support.processes import following


@pytest.fixture(scope="module")
def tried_out(tmp_path_factory) -> Path:
    """A cache that has the model which adds 5: most tests would try it out, and no more."""
    folder = tmp_path_factory.mktemp("tried out") / "cache"
    settings = ModelSettings.from_environ({"MODEL_CACHE_DIR": str(folder)}, is_used=True)
    loader = OnnxLoader(settings)
    loader(StateMessage(models.message(models.adding(5))))
    loader._trials.close()
    return folder


@pytest.fixture
def cache(tmp_path, tried_out) -> Path:
    return shutil.copytree(tried_out, tmp_path / "cache")


@pytest.fixture
def onnx(tmp_path, cache):
    """Settings for a service in this process."""
    return {
        "loader": "onnx",
        "model": ModelSettings.from_environ(
            {
                "MODEL_CACHE_DIR": str(cache),
                "MODEL_URI_PREFIXES": f"file://{tmp_path}/",
                "MODEL_MAX_BYTES": "500000",
            },
            is_used=True,
        ),
    }


@pytest.fixture
def serving(topic, tmp_path, cache):
    """Run the program on the topic, with models that may be under `tmp_path`."""

    def run(*options: str, **environ: str):
        return following(
            topic,
            tmp_path / "output",
            *options,
            STATE_LOADER="onnx",
            MODEL_CACHE_DIR=str(cache),
            **{"MODEL_URI_PREFIXES": f"file://{tmp_path}/", **environ},
        )

    return run


@pytest.fixture
def stored(tmp_path):
    """Store a model, and give its URI."""

    def store(model: bytes, name: str = "model.onnx") -> str:
        (tmp_path / name).write_bytes(model)
        return f"file://{tmp_path / name}"

    return store
