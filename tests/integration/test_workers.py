"""Under gunicorn each worker follows on its own, from after its fork to its end."""

from __future__ import annotations

import os
import re
import shutil
import signal
from pathlib import Path

import pytest

from tests.processes import ROOT, free_port, gunicorn, running
from tests.waiting import eventually

FOLLOWING = re.compile(r"\[(\d+)\] \[INFO\] Following as (\S+):")

KINDS = [
    pytest.param([], id="gthread"),
    pytest.param(["--preload"], id="gthread preloaded"),
    pytest.param(["-k", "sync", "--threads", "1"], id="sync"),
    pytest.param(["-k", "sync", "--threads", "1", "--preload"], id="sync preloaded"),
]


@pytest.fixture
def serve_with_gunicorn(topic, tmp_path):
    def start(*options: str, cwd: Path = ROOT):
        port = free_port()
        environ = {
            "KAFKA_TOPIC": topic.name,
            "KAFKA_BOOTSTRAP_SERVERS": topic.servers,
            "PORT": str(port),
        }
        return running(gunicorn(*options), port, environ, tmp_path / "output", cwd)

    return start


def followers(program) -> dict[int, str]:
    """By process, the group that it follows as."""
    return {int(pid): group for pid, group in FOLLOWING.findall(program.output)}


@pytest.mark.parametrize("options", KINDS)
def test_each_worker_follows_on_its_own_and_after_its_fork(topic, serve_with_gunicorn, options):
    topic.send_state("before")
    with serve_with_gunicorn("--workers", "2", *options) as program:
        eventually(lambda: program.output.count("Initializing API") == 2)
        master, *workers = (process.pid for process in program.tree())
        assert set(followers(program)) == set(workers)
        assert len(set(followers(program).values())) == 2
        topic.send_state("after")
        eventually(lambda: program.output.count('State updated to: "after"') == 2)
        program.comes_to("after")
        assert program.get("/healthz").status_code == 200
        assert master not in followers(program)


@pytest.mark.parametrize("options", KINDS)
def test_workers_that_a_reload_brings_follow_too(topic, serve_with_gunicorn, options):
    topic.send_state("before")
    with serve_with_gunicorn(*options) as program:
        program.comes_to("before")
        old = followers(program)
        program.process.send_signal(signal.SIGHUP)
        eventually(lambda: len(followers(program)) == 2)
        eventually(lambda: {process.pid for process in program.tree()}.isdisjoint(old))
        topic.send_state("after")
        program.comes_to("after")


def test_a_reload_brings_the_code_that_is_on_disk(topic, serve_with_gunicorn, tmp_path):
    for name in ("wsgi.py", "gunicorn.conf.py"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "app", tmp_path / "app")
    with serve_with_gunicorn(cwd=tmp_path) as program:
        assert eventually(lambda: program.get("/")).json() == {"message": "Hello World"}
        views = tmp_path / "app" / "views.py"
        views.write_text(views.read_text().replace("Hello World", "Hello again, World"))
        program.process.send_signal(signal.SIGHUP)
        eventually(lambda: program.get("/").json() == {"message": "Hello again, World"})


@pytest.mark.apache_kafka
@pytest.mark.parametrize("options", KINDS)
def test_no_group_is_left_behind_by_a_clean_stop(topic, serve_with_gunicorn, groups, options):
    topic.send_state("before")

    with serve_with_gunicorn("--workers", "2", *options) as program:
        eventually(lambda: len(followers(program)) == 2)
        own = set(followers(program).values())
        eventually(lambda: own <= groups())
        program.process.terminate()
        program.process.wait(5)
        assert own.isdisjoint(groups())
        assert "Traceback" not in program.output


def test_a_killed_worker_is_replaced_by_one_that_follows(topic, serve_with_gunicorn):
    topic.send_state("before")
    with serve_with_gunicorn() as program:
        program.comes_to("before")
        (pid,) = followers(program)
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: len(followers(program)) == 2)
        topic.send_state("after")
        program.comes_to("after")
