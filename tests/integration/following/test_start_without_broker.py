"""A start while no broker answers serves what was served before, by what is on the disk."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import time
from pathlib import Path

import pytest

from tests.support.crashes import (
    FROM_DISK,
    Brokers,
    Serve,
    crash,
    crashed,
    kept,
    reload,
    seconds_to_serve,
)
from tests.support.processes import ended, following, gunicorn, kafka_state
from tests.support.topics import Topic
from tests.support.waiting import eventually

LARGE = 1_500_000


@pytest.fixture
def brokers(bootstrap_servers):
    brokers = Brokers(bootstrap_servers)
    yield brokers
    brokers.go()


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "states"


@pytest.fixture
def serve(topic, brokers, tmp_path, folder) -> Serve:
    """Run the program on the topic, once after the other: gunicorn's options, and variables."""
    runs = iter(range(100))

    def serve(*options: str, **environ: str):
        asked = Topic(topic.name, brokers.address)
        output = tmp_path / f"output{next(runs)}"
        return following(asked, output, *options, **{"STATE_CACHE_DIR": str(folder), **environ})

    return serve


def test_a_reload_right_after_a_message_that_is_not_on_the_disk_yet_loses_nothing(
    topic, brokers, serve
):
    """The worker that ends writes it, perhaps when the next has read what was there before."""
    with serve() as program:
        topic.send_state(*range(30))
        program.comes_to(29)
        brokers.go()
        reload(program)
        program.comes_to(29)
        assert "cached" in program.get("/readyz").json()


def test_a_killed_worker_is_replaced_by_one_that_serves_it(topic, brokers, serve, folder):
    topic.send_state("last")
    with serve() as program:
        program.comes_to("last")
        eventually(lambda: kept(folder) == ["last"])
        brokers.go()
        program.tree()[1].kill()
        eventually(lambda: FROM_DISK in program.output)
        assert program.get().json() == {"state": "last"}


def test_what_is_served_while_the_topic_has_no_message_is_served_too(brokers, serve, folder):
    with serve(STATE_INITIAL='"none"') as program:
        eventually(lambda: list(folder.glob("*.state")))
        brokers.go()
        crash(program)
    with serve(STATE_INITIAL='"none"') as program:
        program.comes_to("none")
        assert program.get().headers["ETag"] == '"initial"'
        assert "X-State-Stale" in program.get().headers


def test_four_workers_share_one_file(topic, brokers, serve, folder):
    with serve("--workers", "4") as program:
        for number in range(50):
            topic.send_state(number)
        eventually(lambda: kept(folder) == [49])
        brokers.go()
        crash(program)
    with serve("--workers", "4") as program:
        eventually(lambda: program.output.count(FROM_DISK) == 4)
        for _ in range(20):
            assert program.get().json() == {"state": 49}
        brokers.come()
        topic.send_state("new")
        eventually(lambda: kept(folder) == ["new"])
    assert len(list(folder.iterdir())) == 1


def test_services_of_two_clusters_share_a_folder(topic, brokers, bootstrap_servers, serve, folder):
    """Whose topics have the same name: it is by its address that a cluster is told."""
    others = Brokers(bootstrap_servers)
    with contextlib.closing(contextlib.ExitStack()) as running:
        topic.send_state(1)
        here, there = {}, {"KAFKA_BOOTSTRAP_SERVERS": others.address}
        programs = [running.enter_context(serve(**environ)) for environ in (here, there)]
        for program in programs:
            program.comes_to(1)
        brokers.go()
        crash(programs[0])
        topic.send_state(2)
        programs[1].comes_to(2)
        eventually(lambda: sorted(kept(folder)) == [1, 2])
        others.go()
        crash(programs[1])
        for environ, state in ((here, 1), (there, 2)):
            program = running.enter_context(serve(**environ))
            program.comes_to(state)
            assert "cached" in program.get("/readyz").json()


def test_is_not_ready_where_it_is_staler_than_it_may_be(topic, brokers, serve, folder):
    topic.send_state("last")
    with crashed(serve(), folder, "last"):
        brokers.go()
    (file,) = folder.iterdir()
    os.utime(file, (time.time() - 3600, time.time() - 3600))
    with serve(STATE_MAX_STALE_SECONDS="3000") as program:
        program.comes_to("last")
        assert 3600 <= int(program.get().headers["X-State-Stale"]) < 3700
        assert program.get("/readyz").status_code == 503
        assert "STATE_MAX_STALE_SECONDS is 3000" in program.get("/readyz").json()["detail"]


@pytest.mark.parametrize("damage", ["cut off", "of another topic"])
def test_a_file_that_is_of_no_use_is_told_and_keeps_nothing_from_being_served(
    topic, brokers, serve, folder, damage
):
    topic.send_state("last")
    with crashed(serve(), folder, "last"):
        brokers.go()
    (file,) = folder.iterdir()
    if damage == "cut off":
        file.write_bytes(file.read_bytes()[:-1])
    else:
        file.write_bytes(file.read_bytes().replace(topic.name.encode(), b"another"))
    with serve() as program:
        eventually(lambda: program.get("/healthz"))
        reason = program.get().json()["detail"]
        assert "connection refused; the state on the disk is of no use" in reason
        assert program.get("/readyz").json()["detail"] == reason
        brokers.come()
        program.comes_to("last")
        eventually(lambda: kept(folder) == ["last"])
        assert "Traceback" not in program.output


def test_a_file_from_the_future_is_current_until_now(topic, brokers, serve, folder):
    topic.send_state("last")
    with crashed(serve(), folder, "last"):
        brokers.go()
    (file,) = folder.iterdir()
    os.utime(file, (2 * time.time(), 2 * time.time()))
    with serve() as program:
        program.comes_to("last")
        assert int(program.get().headers["X-State-Stale"]) < 60


def test_a_disk_that_is_full_holds_nothing_up_and_is_told(topic, serve, folder):
    topic.send_state("small")
    with serve() as program:
        program.comes_to("small")
        eventually(lambda: kept(folder) == ["small"])
        worker = program.tree()[1]
        limits = worker.rlimit(resource.RLIMIT_FSIZE)
        worker.rlimit(resource.RLIMIT_FSIZE, (LARGE // 2, limits[1]))
        state = "x" * LARGE
        topic.send_state(state, producer=topic.new_producer(**{"message.max.bytes": 2 * LARGE}))
        program.comes_to(state)
        error = eventually(lambda: program.get("/status").json()["cache_error"])
        assert error.endswith(".state: File too large")
        assert program.get("/readyz").json() == {"status": "ready"}
        assert program.output.count("The state cannot be kept") == 1
        assert kept(folder) == ["small"]
        worker.rlimit(resource.RLIMIT_FSIZE, limits)
        eventually(lambda: kept(folder) == [state], within=60)
        eventually(lambda: program.get("/status").json()["cache_error"] is None)


def test_a_folder_that_can_be_written_to_no_more_is_told_and_made_again(topic, serve, folder):
    topic.send_state("first")
    with serve() as program:
        program.comes_to("first")
        eventually(lambda: kept(folder) == ["first"])
        folder.rename(folder.with_name("away"))
        folder.write_bytes(b"in the way")
        topic.send_state("second")
        program.comes_to("second")
        eventually(lambda: program.get("/status").json()["cache_error"])
        folder.unlink()
        eventually(lambda: kept(folder) == ["second"], within=60)
        eventually(lambda: "The state is kept again" in program.output)


@pytest.mark.parametrize("command", [gunicorn(), [*kafka_state(), "check"]])
def test_a_folder_that_cannot_be_written_to_ends_the_start(topic, tmp_path, command):
    (tmp_path / "file").write_bytes(b"")
    environ = {**topic.environ, "PORT": "0", "TMPDIR": str(tmp_path)}
    folder = f"{tmp_path}/file/states"
    done = ended(command, **environ, STATE_CACHE_DIR=folder)
    assert done.returncode != 0
    told = f"STATE_CACHE_DIR is {folder!r}: accepted is a folder that can be written to"
    assert told in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_check_neither_reads_nor_writes_what_is_kept(topic, folder):
    topic.send_state("last")
    done = ended([*kafka_state(), "check"], **topic.environ, STATE_CACHE_DIR=str(folder))
    assert done.returncode == 0, done.stdout
    assert list(folder.iterdir()) == []


@pytest.mark.alone
def test_is_served_at_once_where_nothing_answers_who_connects(topic, brokers, serve, folder):
    """Not even that it is refused: packets are lost on the way."""
    topic.send_state("last")
    with crashed(serve(), folder, "last"):
        brokers.go()
    with contextlib.ExitStack() as opened:
        full = opened.enter_context(socket.create_server(("127.0.0.1", brokers.port), backlog=0))
        for _ in range(2):  # as many as the queue has room for
            client = opened.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(full.getsockname())
        with serve(LOG_FORMAT="json") as program:
            program.comes_to("last")
            assert seconds_to_serve(program) < 0.5
            assert program.get("/status").json()["failures"] == 0
