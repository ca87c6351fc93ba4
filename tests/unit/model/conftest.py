from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.model.loader import OnnxLoader
from app.settings.model import ModelSettings


@pytest.fixture
def loader(tmp_path: Path) -> Iterator[Callable[..., OnnxLoader]]:
    """Make a loader with these settings, whose cache is in `tmp_path`."""
    made = []

    def loader(**environ: str) -> OnnxLoader:
        settings = ModelSettings.from_environ(
            {"MODEL_CACHE_DIR": str(tmp_path), **environ}, is_used=True
        )
        assert settings
        made.append(OnnxLoader(settings))
        return made[-1]

    yield loader
    for each in made:
        each._trials.close()
