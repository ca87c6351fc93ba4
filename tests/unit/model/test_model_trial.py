"""The first load and run of models that do what they should not, in real processes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading

import psutil
import pytest

from app.message_errors import InvalidMessage, RetryableError
from app.model import trial
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
def trials():
    with contextlib.closing(Trials()) as trials:
        yield trials


@pytest.fixture
def children():
    """The processes that were started since the test began."""
    before = psutil.Process().children()
    return lambda: [child for child in psutil.Process().children() if child not in before]


def test_has_nothing_against_a_model(stored, trials):
    trials.try_out(stored(models.adding(5)), LIMITS, 60, nothing)


def test_finds_a_model_whose_path_is_relative(stored, tmp_path, monkeypatch, trials):
    monkeypatch.chdir(tmp_path)
    trials.try_out(stored(models.adding(5)).relative_to(tmp_path), LIMITS, 60, nothing)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param(models.ending_its_process(), "ends the process by SIGFPE", id="crash"),
        pytest.param(b"junk", "onnxruntime: .*INVALID_PROTOBUF", id="junk"),
        pytest.param(models.of_many(251), "accepted are 1000 in a request", id="large"),
    ],
)
def test_what_cannot_be_loaded_is_invalid(stored, content, said, trials):
    with pytest.raises(InvalidMessage, match=said) as raised:
        trials.try_out(stored(content), LIMITS, 60, nothing)
    assert raised.value.reason == "model"


def test_what_others_print_in_its_process_is_no_word_of_it(stored, tmp_path, monkeypatch, trials):
    (tmp_path / "sitecustomize.py").write_text("print('hello')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    trials.try_out(stored(models.adding(5)), LIMITS, 60, nothing)
    with pytest.raises(InvalidMessage, match="INVALID_PROTOBUF"):
        trials.try_out(stored(b"junk"), LIMITS, 60, nothing)


def test_what_does_not_end_is_tried_again_and_goes_on_nowhere(stored, children, trials):
    with pytest.raises(RetryableError, match=r"in 1 s$") as raised:
        trials.try_out(stored(models.never_ending()), LIMITS, 1, nothing)
    assert raised.value.reason == "slow"
    assert children() == []


def test_what_is_killed_where_memory_is_short_is_tried_again(stored, children, trials):
    def kill() -> None:
        eventually(children)[0].kill()

    killing = threading.Thread(target=kill)
    killing.start()
    with pytest.raises(RetryableError) as raised:
        trials.try_out(stored(models.never_ending()), LIMITS, 60, nothing)
    killing.join()
    assert raised.value.reason == "memory"


def test_what_is_stopped_from_outside_is_tried_again(stored, children, trials):
    """As by a supervisor that stops the service, or by one that watches the memory."""
    stopping = threading.Thread(target=lambda: eventually(children)[0].terminate())
    stopping.start()
    with pytest.raises(RetryableError, match="SIGTERM") as raised:
        trials.try_out(stored(models.never_ending()), LIMITS, 60, nothing)
    stopping.join()
    assert raised.value.reason == "trial"


def test_is_over_when_the_checkpoint_says_so(stored, children, trials):
    def stop() -> None:
        if children():
            raise SystemExit

    with pytest.raises(SystemExit):
        trials.try_out(stored(models.never_ending()), LIMITS, 60, stop)
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


def test_is_tried_again_where_there_is_no_process_for_it(stored, monkeypatch, trials):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(RetryableError, match="No such file") as raised:
        trials.try_out(stored(models.adding(5)), LIMITS, 60, nothing)
    assert raised.value.reason == "trial"


def test_is_tried_again_where_its_process_ends_by_itself(stored, trials, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RetryableError, match="ended with 1") as raised:
        trials.try_out(stored(models.adding(5)), LIMITS, 60, nothing)
    assert raised.value.reason == "trial"


def test_one_process_tries_one_model_after_the_other_out(stored, children, trials):
    trials.make_ready()
    (ready,) = children()
    trials.try_out(stored(models.adding(5)), LIMITS, 60, nothing)
    with pytest.raises(InvalidMessage):
        trials.try_out(stored(b"junk"), LIMITS, 60, nothing)
    trials.try_out(stored(models.adding(6)), LIMITS, 60, nothing)
    assert children() == [ready]


def test_the_process_keeps_no_memory_of_a_large_model(stored, children, trials):
    trials.try_out(stored(models.adding(5)), LIMITS, 60, nothing)
    (process,) = children()
    before = process.memory_info().rss
    trials.try_out(stored(models.adding(5, megabytes=100)), LIMITS, 60, nothing)
    assert children() == [process]
    eventually(lambda: process.memory_info().rss < before + 20e6)


def test_what_crashes_a_process_that_was_used_before_is_tried_in_a_new_one(
    stored, children, trials
):
    trials.try_out(stored(models.adding(5)), LIMITS, 60, nothing)
    (used,) = children()
    os.kill(used.pid, signal.SIGSTOP)  # or it might have answered before

    def crash() -> None:
        """As what another model has destroyed may do."""
        if used.is_running():
            os.kill(used.pid, signal.SIGSEGV)
            os.kill(used.pid, signal.SIGCONT)

    trials.try_out(stored(models.adding(6)), LIMITS, 60, crash)
    assert used not in children()
    with pytest.raises(InvalidMessage, match="SIGFPE"):
        trials.try_out(stored(models.ending_its_process()), LIMITS, 60, nothing)


def test_one_that_needs_more_memory_than_there_is_fails_alone_and_is_tried_again(
    stored, trials, monkeypatch
):
    hungry = models.calculating(6000)  # its matrices have 144 MB each
    lacking = "bad_alloc|Failed to allocate memory"
    free = 100 * 2**20
    monkeypatch.setattr(trial, "free_memory", lambda: free)
    with pytest.raises(RetryableError, match=lacking) as raised:
        trials.try_out(stored(hungry), LIMITS, 60, nothing)
    assert raised.value.reason == "memory"
    many_threads = LIMITS._replace(threads=64)  # whose stacks are no memory that is used
    trials.try_out(stored(models.adding(5)), many_threads, 60, nothing)
    free = 1000 * 2**20
    trials.try_out(stored(hungry), LIMITS, 60, nothing)
    trials.share_memory(10)  # each of them will load it
    with pytest.raises(RetryableError, match=lacking):
        trials.try_out(stored(hungry), LIMITS, 60, nothing)


def test_one_that_was_made_ready_and_has_ended_is_not_missed(stored, children, trials):
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
