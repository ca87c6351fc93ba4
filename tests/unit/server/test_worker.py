"""The thread of a worker that handles signals, and waits."""

from __future__ import annotations

import os
import sys

import pytest
from gunicorn.config import Config
from gunicorn.glogging import Logger

from app.server.worker import Worker


@pytest.fixture
def worker():
    cfg = Config()
    worker = Worker(1, os.getppid(), [], None, cfg.timeout, cfg, Logger(cfg))
    yield worker
    worker.tmp.close()


def test_a_signal_may_come_wherever_the_main_thread_is_while_it_waits(worker):
    came = []

    def handle(*_):
        """As a signal's handler, before each line."""
        came.append(worker.alive)
        worker.alive = False
        worker.alive = True
        return handle

    others = sys.gettrace()
    sys.settrace(handle)
    try:
        worker._sleep_until_busy(0.1)
    finally:
        sys.settrace(others)
    assert len(came) > 5
