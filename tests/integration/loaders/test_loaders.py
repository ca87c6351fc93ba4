"""Whoever makes of a message what is served: a callable of one's own."""

from __future__ import annotations

import re
import time

import pytest
import requests

from tests.support.docs import section
from tests.support.processes import ROOT, following, kafka_state, running_on
from tests.support.waiting import eventually

NOW = int(time.time() * 1000)
# what the docs show
THRESHOLD, THRESHOLD_API = (
    re.findall(r"```python\n(.*?)```", section("loaders", title), re.DOTALL)[0]
    for title in ("A loader in ten lines", "Your own views")
)
# does what its message says
OBEDIENT = """
import os, time
from app.loaders.protocol import InvalidMessage, RetryableError

class Served:
    def __init__(self, state):
        self.representation = {"obeyed": state}

def load(message):
    if message.state == "refuse":
        raise InvalidMessage("refused", "as it says")
    if message.state == "wait" and not os.path.exists("there"):
        raise RetryableError("gone", "nothing there")
    if message.state == "fail":
        raise RuntimeError("whatever")
    if message.state == "exit":
        raise SystemExit
    if message.state == "memory":
        raise MemoryError
    if message.state == "babble":
        raise InvalidMessage(["no", "word"], "\\udc80 is half a character")
    while message.state == "work":
        message.checkpoint()
        time.sleep(0.1)
    return object() if message.state == "hide" else Served(message.state)

def is_cached(message):
    if message.state == "doubt":
        raise RuntimeError("who knows")
    return message.state != "work"

load.is_cached = is_cached
"""


SHAPES = """
def of_nothing():
    return None

def of_two(message, other):
    return None

async def later(message):
    return None

class Later:
    async def __call__(self, message):
        return None

class Bare:
    pass

class Counting:
    def __init__(self):
        self.calls = 0

    def __call__(self, message):
        self.calls += 1
        return {"calls": self.calls, "state": message.state}
"""


@pytest.fixture
def serving(topic, tmp_path):
    """Run the program with a loader from a file, in a folder of its own."""
    for name in ("wsgi.py", "gunicorn.conf.py"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "obedient.py").write_text(OBEDIENT)
    (tmp_path / "threshold.py").write_text(THRESHOLD)
    (tmp_path / "shapes.py").write_text(SHAPES)

    def run(loader: str = "obedient.load", on=topic, output: str = "output"):
        return following(on, tmp_path / output, cwd=tmp_path, STATE_LOADER=loader)

    return run


def status(program):
    return program.get("/status").json()


def test_serves_what_a_loader_returns(topic, serving):
    topic.send_state({"threshold": "0.5", "by": "hand"})
    with serving("threshold.load") as program:
        program.comes_to(0.5)
        topic.send_state({"threshold": 2})
        eventually(lambda: status(program)["invalid_messages"] == {"range": 1})
        topic.send_state({"threshold": 1})
        program.comes_to(1)


def test_a_view_of_ones_own_reads_what_is_served(topic, tmp_path):
    (tmp_path / "threshold.py").write_text(THRESHOLD)
    (tmp_path / "threshold_api.py").write_text(THRESHOLD_API)
    topic.send_state({"threshold": "0.5"})
    command = [*kafka_state(), "serve", "threshold_api:app"]
    output = tmp_path / "output"
    with running_on(topic, command, output, cwd=tmp_path, STATE_LOADER="threshold.load") as program:
        program.comes_to(0.5)
        assert program.get("/threshold").json() == {"threshold": 0.5, "offset": 0}


def test_shows_what_an_object_has_to_show(topic, serving):
    topic.send_state("anything")
    with serving() as program:
        program.comes_to({"obeyed": "anything"})


@pytest.mark.parametrize("refused", ["refuse", "fail", "hide"])
def test_a_start_walks_back_to_the_newest_message_that_loads(topic, serving, refused):
    topic.send_state("older", "newest", *[refused] * 20)
    with serving() as program:
        program.comes_to({"obeyed": "newest"})
        reason = "refused" if refused == "refuse" else "loader"
        assert status(program)["failed_loads"] == {reason: 20}
        assert status(program)["last_invalid"]["reason"] == reason


def test_a_start_serves_what_is_cached_while_a_newer_one_is_loaded(topic, serving):
    topic.send_state("older", "doubt", "work")
    with serving() as program:
        program.comes_to({"obeyed": "older"})
        assert status(program)["failed_loads"] == {"loader": 1}
        assert [p["offset"] for p in status(program)["pending"]] == [2]


def test_says_that_it_loads_while_nothing_is_cached(topic, serving):
    topic.send_state("work")
    with serving() as program:
        eventually(lambda: program.get("/readyz") is not None)
        loading = "loading the message in partition 0, offset 0"
        eventually(lambda: program.get("/readyz").json().get("detail") == loading)


def test_an_error_of_the_loader_is_logged_with_its_traceback_and_skips_the_message(topic, serving):
    topic.send_state("good")
    with serving() as program:
        program.comes_to({"obeyed": "good"})
        topic.send_state("fail")
        eventually(lambda: 'raise RuntimeError("whatever")' in program.output)
        topic.send_state("better")
        program.comes_to({"obeyed": "better"})
        assert status(program)["connections"] == 1


@pytest.mark.parametrize(
    ("state", "reason"), [("exit", "loader"), ("babble", "['no', 'word']"), ("memory", "memory")]
)
def test_whatever_a_loader_raises_following_goes_on(topic, serving, state, reason):
    topic.send_state("good")
    with serving() as program:
        program.comes_to({"obeyed": "good"})
        topic.send_state(state)
        eventually(lambda: reason in status(program)["failed_loads"])
        topic.send_state("better")
        program.comes_to({"obeyed": "better"})
        assert status(program)["connections"] == 1
        assert f'{{reason="{reason}"}}' in program.get("/metrics").text


def test_what_is_served_stays_until_what_is_to_be_tried_again_loads(topic, serving, tmp_path):
    topic.send_state("good")
    with serving() as program:
        program.comes_to({"obeyed": "good"})
        topic.send_state("wait")
        eventually(
            lambda: status(program)["pending"] and status(program)["pending"][0]["tries"] > 2
        )
        assert status(program)["pending"][0]["detail"] == "nothing there"
        program.comes_to({"obeyed": "good"})
        (tmp_path / "there").touch()
        program.comes_to({"obeyed": "wait"})
        assert status(program)["pending"] == []


def test_who_follows_serves_what_who_starts_serves_while_the_newest_is_to_be_tried_again(
    make_topic, serving, tmp_path
):
    topic = make_topic(partitions=2)
    topic.send_state("old", partition=0, timestamp=NOW)
    with serving(on=topic) as running:
        running.comes_to({"obeyed": "old"})
        topic.send_state("wait", partition=1, timestamp=NOW + 200)
        eventually(lambda: status(running)["pending"])
        topic.send_state("between", partition=0, timestamp=NOW + 150)
        running.comes_to({"obeyed": "between"})
        assert running.get("/state?min_offset=0:1").json() == {"state": {"obeyed": "between"}}
        with serving(on=topic, output="output of the second") as starting:
            starting.comes_to({"obeyed": "between"})
            (tmp_path / "there").touch()
            running.comes_to({"obeyed": "wait"})
            starting.comes_to({"obeyed": "wait"})


def test_a_message_is_read_through_when_it_is_loaded_and_not_when_it_came(topic, serving, tmp_path):
    def read_through(offset: int) -> requests.Response:
        url = f"http://127.0.0.1:{program.port}/state?min_offset=0:{offset}"
        return requests.get(url, headers={"Prefer": "wait=0"}, timeout=5)

    topic.send_state("good")
    with serving() as program:
        program.comes_to({"obeyed": "good"})
        topic.send_state("wait")
        eventually(lambda: status(program)["pending"])
        assert read_through(0).status_code == 200
        assert read_through(1).status_code == 503
        (tmp_path / "there").touch()
        eventually(lambda: read_through(1).ok)
        assert read_through(1).json() == {"state": {"obeyed": "wait"}}


def test_says_why_nothing_is_served_while_the_only_message_does_not_load(topic, serving, tmp_path):
    topic.send_state("wait")
    with serving() as program:
        eventually(lambda: program.get("/readyz") is not None)
        eventually(lambda: "nothing there" in program.get("/readyz").json().get("detail", ""))
        assert program.get().status_code == 503
        (tmp_path / "there").touch()
        program.comes_to({"obeyed": "wait"})


def test_a_loader_that_is_at_work_neither_holds_a_stop_nor_looks_dead(topic, serving):
    topic.send_state("good")
    with serving() as program:
        program.comes_to({"obeyed": "good"})
        topic.send_state("work")
        assert program.get("/healthz").status_code == 200
        program.process.terminate()
        assert program.process.wait(3) == 0


def test_a_class_is_instantiated_and_called(topic, serving):
    topic.send_state(1)
    with serving("shapes:Counting") as program:
        program.comes_to({"calls": 1, "state": 1})
        topic.send_state(2)
        program.comes_to({"calls": 2, "state": 2})


@pytest.mark.parametrize("loader", ["imports_nothing.load", "raises.load"])
def test_a_loader_whose_import_fails_ends_the_program_with_the_traceback(tmp_path, serving, loader):
    (tmp_path / "imports_nothing.py").write_text("import nowhere_to_be_found\n")
    (tmp_path / "raises.py").write_text("load = {}['nowhere_to_be_found']\n")
    with serving(loader) as program:
        assert program.process.wait(20) != 0
        assert "Traceback" in program.output
        assert f'{loader.removesuffix(".load")}.py", line 1' in program.output
        assert "nowhere_to_be_found" in program.output


@pytest.mark.parametrize(
    ("loader", "said"),
    [
        ("nowhere.load", "No module named 'nowhere'"),
        ("obedient.nothing", "module 'obedient' has no attribute 'nothing'"),
        ("obedient.os", "that is a module"),
        ("shapes.of_nothing", "too many positional arguments"),
        ("shapes.of_two", "missing a required argument: 'other'"),
        ("shapes.later", "that is async"),
        ("shapes:Later", "that is async"),
        ("shapes.Bare", "that is a class without __call__"),
        ("load", "accepted are json, onnx, and the dotted path of a callable"),
    ],
)
def test_a_loader_that_is_none_ends_the_program_at_once(serving, loader, said):
    with serving(loader) as program:
        assert program.process.wait(20) != 0
        assert "Traceback" not in program.output
        assert f"STATE_LOADER is '{loader}'" in program.output
        assert said in program.output
