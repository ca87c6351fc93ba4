"""The program, and a collector that it sends its traces to."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import ROOT
from tests.support.trace_collector import Collector, collecting


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """To start the program in, for what a test puts beside it."""
    for name in ("wsgi.py", "gunicorn.conf.py"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


@pytest.fixture
def serving_traced(serving: Callable[..., Any], collector: Collector) -> Callable[..., Any]:
    """Run the program on the topic: gunicorn's options, and variables."""
    return functools.partial(serving, **collector.environ)
