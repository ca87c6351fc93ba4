"""`make run` as a person uses it: start it, ask, send, ask again, Ctrl-C."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time

import pytest

from dev.broker import answers
from tests.support.clients import IS_KAFKA_PYTHON_3
from tests.support.processes import ROOT, assert_all_ended, ended, free_port, running
from tests.support.waiting import eventually

EMBEDDED_PORT = 9092
WITHIN_SECONDS = 5

pytestmark = pytest.mark.xdist_group("port 9092")
needs_embedded = pytest.mark.skipif(
    IS_KAFKA_PYTHON_3, reason="the embedded broker does not answer kafka-python 3"
)


@pytest.fixture
def make_run(tmp_path):
    def start(**environ: str):
        port = free_port()
        return running(["make", "run"], port, {"PORT": str(port), **environ}, tmp_path / "output")

    return start


@pytest.fixture
def nothing_at_9092():
    try:
        socket.create_server(("127.0.0.1", EMBEDDED_PORT)).close()
    except OSError:
        give_up = pytest.fail if os.environ.get("CI") else pytest.skip
        give_up(f"port {EMBEDDED_PORT} is in use on this machine; this test needs it")


def make_run_producer(port: int, **variables: str) -> str:
    assignments = [f"{name}={value}" for name, value in variables.items()]
    said = ended(["make", "run-producer", *assignments], PORT=str(port))
    assert said.returncode == 0, said.stderr
    return said.stdout


def assert_ends_quietly(program) -> None:
    processes = program.tree()
    before = len(program.output)
    asked = time.monotonic()
    program.press_ctrl_c()
    program.process.wait(WITHIN_SECONDS)
    assert_all_ended(processes, asked + WITHIN_SECONDS - time.monotonic())
    farewell = program.output[before:]
    assert "Traceback" not in program.output
    assert "WARNING" not in farewell
    assert "ERROR" not in farewell


@needs_embedded
@pytest.mark.usefixtures("nothing_at_9092")
def test_serves_from_an_embedded_broker_that_a_producer_reaches_at_the_usual_port(make_run):
    with make_run() as program:
        program.comes_to(0)
        assert (
            "Broker: an embedded one at localhost:9092, in memory: "
            "what it holds is gone when it stops\n"
        ) in program.output
        said = make_run_producer(program.port, STATE="77")
        assert said.startswith("Sending message with value: {")
        assert f"Served by http://localhost:{program.port}: partition " in said
        assert program.get().json() == {"state": 77}
        make_run_producer(program.port, STATE='{"a": "it\'s $HOME, $(b) `c`"}', COUNT="1000")
        program.comes_to({"a": "it's $HOME, $(b) `c`"})
        assert_ends_quietly(program)
    assert not answers(f"localhost:{EMBEDDED_PORT}")


@needs_embedded
@pytest.mark.usefixtures("nothing_at_9092")
def test_each_read_right_after_make_run_producer_is_of_what_it_sent(make_run):
    with make_run() as program:
        program.comes_to(0)
        for state in range(1, 9):
            make_run_producer(program.port, STATE=str(state))
            assert program.get().json() == {"state": state}
        assert_ends_quietly(program)


@needs_embedded
@pytest.mark.usefixtures("nothing_at_9092")
def test_the_producer_does_not_wait_for_a_service_of_another_topic(make_run):
    with make_run(KAFKA_TOPIC="other") as program:
        program.comes_to(0)
        said = make_run_producer(program.port)
        assert "Delivered to test-topic" in said
        assert "Served" not in said
        assert_ends_quietly(program)


@pytest.mark.own_kafka
@pytest.mark.usefixtures("nothing_at_9092")
def test_make_kafka_is_a_real_broker_until_ctrl_c(make_run, tmp_path):
    with running(["make", "kafka"], EMBEDDED_PORT, {}, tmp_path / "kafka") as kafka:
        eventually(lambda: "answers at localhost:9092; Ctrl-C stops it" in kafka.output, within=60)
        with make_run() as program:
            program.comes_to(0)
            assert "Broker: localhost:9092, which was already there" in program.output
            make_run_producer(program.port, STATE="77")
            assert program.get().json() == {"state": 77}
            assert_ends_quietly(program)
        processes = kafka.tree()
        kafka.press_ctrl_c()
        assert_all_ended(processes)
        assert "Traceback" not in kafka.output
    assert not answers(f"localhost:{EMBEDDED_PORT}")


@needs_embedded
@pytest.mark.usefixtures("nothing_at_9092")
def test_ctrl_c_ends_it_while_clients_are_connected(make_run):
    with make_run() as program:
        program.comes_to(0)
        idle = [socket.create_connection(("127.0.0.1", program.port)) for _ in range(20)]
        idle[0].sendall(b"GET /state HTTP/1.1\r\nHost: half-")
        with socket.create_connection(("127.0.0.1", EMBEDDED_PORT)):
            assert_ends_quietly(program)
        for connection in idle:
            connection.close()


@needs_embedded
@pytest.mark.usefixtures("nothing_at_9092")
@pytest.mark.parametrize("seen", ["Broker:", "Starting gunicorn", "Booting worker", "Following"])
def test_ctrl_c_ends_it_quietly_however_early(make_run, seen):
    with make_run() as program:
        eventually(lambda: seen in program.output)
        assert_ends_quietly(program)


@needs_embedded
@pytest.mark.usefixtures("nothing_at_9092")
@pytest.mark.parametrize("ended_by", [signal.SIGTERM, signal.SIGHUP])
def test_leaves_nothing_behind_when_its_terminal_is_closed(make_run, ended_by):
    with make_run() as program:
        program.comes_to(0)
        processes = program.tree()
        for process in processes[:2]:  # make and what it runs; gunicorn has its own session
            process.send_signal(ended_by)
        assert_all_ended(processes, WITHIN_SECONDS)


@needs_embedded
@pytest.mark.usefixtures("nothing_at_9092")
def test_refuses_to_embed_a_broker_where_the_port_is_taken_by_something_else(make_run):
    with socket.create_server(("127.0.0.1", EMBEDDED_PORT)), make_run() as program:
        assert program.process.wait(30) != 0
        assert "Error: port 9092 is taken by something that is not Kafka" in program.output


def test_uses_the_broker_it_is_told_of(make_run, topic):
    topic.send_state("before")
    with make_run(**topic.environ) as program:
        program.comes_to("before")
        assert f"Broker: {topic.servers}, from KAFKA_BOOTSTRAP_SERVERS\n" in program.output
        topic.send_state("after")
        program.comes_to("after")
        assert_ends_quietly(program)


def test_a_port_in_use_is_one_line_that_says_how_to_choose_another(topic):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = ended(["make", "run"], KAFKA_BOOTSTRAP_SERVERS=topic.servers, PORT=str(port))
    assert said.returncode == 2
    told = said.stderr.splitlines()[0]
    assert told.startswith(f"Error: port {port} is in use")
    assert "PORT=8001 make run" in told


def test_a_setting_that_makes_no_sense_is_one_line(make_run):
    with make_run(STATE_INITIAL="nope") as program:
        assert program.process.wait(30) != 0
        assert "Error: STATE_INITIAL is 'nope': accepted is a JSON value\n" in program.output
        assert "Traceback" not in program.output


@pytest.mark.skipif(not IS_KAFKA_PYTHON_3, reason="kafka-python-ng and the embedded broker do")
@pytest.mark.usefixtures("nothing_at_9092")
def test_says_that_the_embedded_broker_does_not_answer_this_client(make_run):
    with make_run() as program:
        assert program.process.wait(30) != 0
        assert "Error: the embedded broker does not answer kafka-python 3" in program.output


def test_help_names_every_command():
    shown = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for command in (
        "help",
        "install",
        "run",
        "kafka",
        "run-producer",
        "test",
        "test-python",
        "test-lowest",
        "coverage",
        "soak",
        "lint",
        "bench",
        "demo-model",
        "audit",
        "lock",
        "clean",
    ):
        assert f"make {command} " in shown


@pytest.mark.parametrize("target", ["install", ".venv/with-onnx", ".venv/with-dev"])
def test_a_test_installs_nothing_into_what_the_others_import(target):
    again = ["make", "--question", target]
    eventually(lambda: subprocess.run(again, cwd=ROOT, check=False).returncode == 0, within=1)


@pytest.fixture
def clone(tmp_path):
    """A folder that make has done nothing in."""
    for name in ("Makefile", "setup.cfg", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("constraints-dev.txt", "uv-requirements.txt"):
        (tmp_path / name).touch()
    return tmp_path


def steps_of(clone, *targets: str) -> str:
    return subprocess.run(
        ["make", "--dry-run", *targets], cwd=clone, capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.parametrize(
    ("targets", "extras"),
    [
        (["run"], ["kafka-python-ng,embedded-broker"]),
        (["run-producer"], ["kafka-python-ng,embedded-broker"]),
        (["run", "STATE_LOADER=onnx"], ["kafka-python-ng,embedded-broker", "onnx"]),
        (["test"], ["kafka-python-ng,embedded-broker", "onnx", "dev"]),
        (["lint", "KAFKA_CLIENT=kafka-python"], ["kafka-python,embedded-broker", "dev"]),
    ],
)
def test_a_command_installs_what_it_needs_and_no_more(clone, targets, extras):
    assert re.findall(r"--editable '\.\[(.*)\]'", steps_of(clone, *targets)) == extras


def test_an_environment_that_was_left_half_made_is_made_anew(clone):
    tmp_path = clone
    half_made = tmp_path / ".venv" / "bin" / "python"
    half_made.parent.mkdir(parents=True)
    half_made.touch(mode=0o755)
    steps = steps_of(clone, "install")
    (step,) = [line for line in steps.splitlines() if "-m venv" in line]
    subprocess.run(step, shell=True, cwd=tmp_path, check=True)
    assert ended([str(half_made), "-c", "print(1)"]).stdout == "1\n"
