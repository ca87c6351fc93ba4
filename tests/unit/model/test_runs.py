"""Runs of a model that take too long, or that nobody waits for any more."""

from __future__ import annotations

import gc
import socket
import threading
import time
import weakref
from typing import Any

import numpy as np
import pytest
from werkzeug.exceptions import GatewayTimeout

from app.model.model import Limits, Model
from app.model.runs import ClientLeft, Runs
from tests.support import models
from tests.support.waiting import eventually

FOR_EVER = {"x": np.array([2**62])}
FOR_A_MOMENT = {"x": np.array([2])}


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(models.looping())
    return Model.load(path, {"name": "m", "version": "1"}, Limits(1, 1000))


@pytest.fixture
def runs_for():
    """Runs that may take some seconds, looked at all the time."""
    started: list[Runs] = []

    def start(
        seconds: float,
        before_wait=lambda connection: None,
        cores: int = 2,
        turn_seconds: float = 1.0,
    ) -> Runs:
        runs = Runs(seconds, 0.01, turn_seconds)
        started.append(runs)
        runs.start(cores, before_wait)
        return runs

    yield start
    for runs in started:
        runs.stop()


def test_a_run_that_takes_too_long_is_ended(model, runs_for):
    with (
        pytest.raises(GatewayTimeout, match=r"MODEL_INFER_SECONDS, 0\.1"),
        runs_for(0.1).bounded(None) as run,
    ):
        model.infer(FOR_EVER, ["y"], run.options)


def test_a_run_whose_client_has_left_is_ended(model, runs_for):
    here, there = socket.socketpair()
    with here, there:
        there.close()
        with pytest.raises(ClientLeft), runs_for(60).bounded(here) as run:
            model.infer(FOR_EVER, ["y"], run.options)


def test_a_run_that_is_awaited_goes_on_and_puts_the_servers_deadline_off(model, runs_for):
    here, there = socket.socketpair()
    put_off = []

    def before_wait(connection: socket.socket) -> None:
        put_off.append(connection)
        if len(put_off) == 3:
            there.close()

    with here, pytest.raises(ClientLeft), runs_for(60, before_wait).bounded(here) as run:
        model.infer(FOR_EVER, ["y"], run.options)
    assert put_off == [here] * 3


def test_a_long_run_waits_for_a_core_until_another_is_over(runs_for):
    runs = runs_for(60, cores=1, turn_seconds=60)
    order = []

    def run_for_long() -> None:
        with runs.bounded(None, is_long=True):
            order.append("second")

    with runs.bounded(None, is_long=True):
        second = threading.Thread(target=run_for_long)
        second.start()
        eventually(lambda: runs.waiting == 1)
        with runs.bounded(None):
            order.append("a fast one")
        order.append("first")
    second.join(5)
    assert order == ["a fast one", "first", "second"]


def test_a_run_that_goes_on_shares_its_core_with_the_next(runs_for):
    runs = runs_for(60, cores=1, turn_seconds=0.1)
    for _ in range(2):  # the core is given back once each time
        began = time.monotonic()
        with runs.bounded(None, is_long=True), runs.bounded(None, is_long=True):
            assert time.monotonic() - began >= 0.1


def test_a_run_that_has_no_core_in_time_does_not_begin(runs_for):
    runs = runs_for(0.1, cores=0)
    with pytest.raises(GatewayTimeout), runs.bounded(None, is_long=True):
        raise AssertionError
    assert runs.waiting == 0


def test_who_leaves_while_it_waits_for_a_core_is_not_waited_for(runs_for):
    runs = runs_for(60, cores=0)
    here, there = socket.socketpair()
    with here:
        leaving = threading.Timer(0.1, there.close)
        leaving.start()
        with pytest.raises(ClientLeft), runs.bounded(here, is_long=True):
            raise AssertionError
        leaving.join()


def test_a_connection_that_is_closed_here_meanwhile_harms_no_other_run(model, runs_for):
    runs = runs_for(0.2)
    here, there = socket.socketpair()
    here.close()
    there.close()
    with runs.bounded(here), pytest.raises(GatewayTimeout), runs.bounded(None) as run:
        model.infer(FOR_EVER, ["y"], run.options)


def test_what_a_run_that_was_ended_held_is_freed_at_once(model, runs_for):
    runs = runs_for(0.1)

    def ask() -> weakref.ref[Any]:
        given = np.array([2**62])
        with pytest.raises(GatewayTimeout), runs.bounded(None) as run:
            model.infer({"x": given}, ["y"], run.options)
        return weakref.ref(given)

    gc.disable()
    try:
        assert ask()() is None
    finally:
        gc.enable()


def test_what_the_model_refuses_is_told_as_ever(model, runs_for):
    with pytest.raises(ValueError, match="Unexpected input"), runs_for(60).bounded(None) as run:
        model.infer({"x": np.array([1.0])}, ["y"], run.options)


def test_its_thread_ends_when_it_is_told_to(runs_for):
    before = set(threading.enumerate())
    runs = runs_for(60)
    new = set(threading.enumerate()) - before
    (thread,) = [thread for thread in new if thread.name == "model-runs"]
    runs.stop()
    thread.join(5)
    assert not thread.is_alive()
