"""The first load and run of models that do what they should not, in real processes."""

from __future__ import annotations

import subprocess
import sys
import threading

import psutil
import pytest

from app.message_errors import InvalidMessage, RetryableError
from app.model.model import Limits
from app.model.trial import Trials
from tests.support import models
from tests.support.processes import ROOT, assert_all_ended
from tests.support.waiting import eventually

LIMITS = Limits(threads=1, request_bytes=1000)


def nothing() -> None:
    pass


@pytest.fixture
def stored(tmp_path):
    def store(content: bytes):
        path = tmp_path / "model.onnx"
        path.write_bytes(content)
        return path

    return store


@pytest.fixture
def children():
    """The processes that were started since the test began."""
    before = psutil.Process().children()
    return lambda: [child for child in psutil.Process().children() if child not in before]


def test_has_nothing_against_a_model(stored):
    Trials().try_out(stored(models.adding(5)), LIMITS, 60, nothing)


def test_finds_a_model_whose_path_is_relative(stored, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Trials().try_out(stored(models.adding(5)).relative_to(tmp_path), LIMITS, 60, nothing)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param(models.ending_its_process(), "ends the process by SIGFPE", id="crash"),
        pytest.param(b"junk", "onnxruntime: .*INVALID_PROTOBUF", id="junk"),
        pytest.param(models.of_many(251), "accepted are 1000 in a request", id="large"),
    ],
)
def test_what_cannot_be_loaded_is_invalid(stored, content, said):
    with pytest.raises(InvalidMessage, match=said) as raised:
        Trials().try_out(stored(content), LIMITS, 60, nothing)
    assert raised.value.reason == "model"


def test_what_others_print_in_its_process_is_no_word_of_it(stored, tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text("print('hello')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    Trials().try_out(stored(models.adding(5)), LIMITS, 60, nothing)
    with pytest.raises(InvalidMessage, match="INVALID_PROTOBUF"):
        Trials().try_out(stored(b"junk"), LIMITS, 60, nothing)


def test_what_does_not_end_is_tried_again_and_goes_on_nowhere(stored, children):
    with pytest.raises(RetryableError, match=r"in 1 s$") as raised:
        Trials().try_out(stored(models.never_ending()), LIMITS, 1, nothing)
    assert raised.value.reason == "slow"
    assert children() == []


def test_what_is_killed_where_memory_is_short_is_tried_again(stored, children):
    def kill() -> None:
        eventually(children)[0].kill()

    killing = threading.Thread(target=kill)
    killing.start()
    with pytest.raises(RetryableError) as raised:
        Trials().try_out(stored(models.never_ending()), LIMITS, 60, nothing)
    killing.join()
    assert raised.value.reason == "memory"


def test_what_is_stopped_from_outside_is_tried_again(stored, children):
    """As by a supervisor that stops the service, or by one that watches the memory."""
    stopping = threading.Thread(target=lambda: eventually(children)[0].terminate())
    stopping.start()
    with pytest.raises(RetryableError, match="SIGTERM") as raised:
        Trials().try_out(stored(models.never_ending()), LIMITS, 60, nothing)
    stopping.join()
    assert raised.value.reason == "trial"


def test_is_over_when_the_checkpoint_says_so(stored, children):
    def stop() -> None:
        if children():
            raise SystemExit

    with pytest.raises(SystemExit):
        Trials().try_out(stored(models.never_ending()), LIMITS, 60, stop)
    assert children() == []


def test_is_over_in_time_though_nobody_waits_for_it_any_longer(stored):
    path = stored(models.never_ending())
    program = (
        "from pathlib import Path; from app.model.trial import *; "
        f"Trials().try_out(Path({str(path)!r}), Limits(1, 1000), 2, lambda: None)"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT) as waiting:
        trial = eventually(psutil.Process(waiting.pid).children)
        waiting.kill()
    assert_all_ended(trial, within=10)


def test_is_tried_again_where_there_is_no_process_for_it(stored, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(RetryableError, match="No such file") as raised:
        Trials().try_out(stored(models.adding(5)), LIMITS, 60, nothing)
    assert raised.value.reason == "trial"


def test_the_process_that_was_made_ready_tries_the_next_model_out(stored, children):
    trials = Trials()
    trials.make_ready()
    (ready,) = children()
    told = []
    trials.try_out(stored(models.adding(5)), LIMITS, 60, lambda: told.append(children()))
    assert told[0] == [ready]
    assert children() == []
    with pytest.raises(InvalidMessage):
        trials.try_out(stored(b"junk"), LIMITS, 60, nothing)


def test_one_that_was_made_ready_and_has_ended_is_not_missed(stored, children):
    trials = Trials()
    trials.make_ready()
    children()[0].kill()
    eventually(lambda: children()[0].status() == psutil.STATUS_ZOMBIE)
    trials.try_out(stored(models.adding(5)), LIMITS, 60, nothing)


def test_one_that_was_made_ready_ends_with_who_has_it(children):
    program = "from app.model.trial import Trials; t = Trials(); t.make_ready(); input()"
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdin=subprocess.PIPE
    ) as holding:
        ready = eventually(psutil.Process(holding.pid).children)
        holding.kill()
    assert_all_ended(ready, within=10)


def test_one_that_is_not_needed_any_more_is_ended(children):
    trials = Trials()
    trials.make_ready()
    trials.close()
    assert children() == []
