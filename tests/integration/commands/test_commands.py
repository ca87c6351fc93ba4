"""`kafka-state` as a command: serve, check and status; produce has a module of its own."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess

import pytest
from confluent_kafka.admin import AdminClient

from dev import apache_kafka
from tests.support.processes import ROOT, ended, free_port, kafka_state, running_on
from tests.support.topics import Topic, new_topic
from tests.support.waiting import eventually

KAFKA_STATE = kafka_state()
OWNER_ENDS_SECONDS = 6
LOADS_LATER = """
from app.loaders import RetryableError

def load(message):
    if message.state == "later":
        raise RetryableError("away", "not yet")
    return message.state
"""


def check(topic: Topic, **environ: str) -> subprocess.CompletedProcess[str]:
    return ended([*KAFKA_STATE, "check"], **{**topic.environ, **environ})


def said_of(what: str, said: subprocess.CompletedProcess[str]) -> str:
    """The line of `check` about something."""
    (line,) = [line for line in said.stdout.splitlines() if line[7:].startswith(what)]
    return line


@pytest.fixture
def serving(topic, tmp_path):
    """Run `kafka-state serve` in a folder that has nothing of the program."""
    (tmp_path / "elsewhere").mkdir()

    def run(*options: str, **environ: str):
        command = [*KAFKA_STATE, "serve", *options]
        return running_on(
            topic, command, tmp_path / "output", cwd=tmp_path / "elsewhere", **environ
        )

    return run


def test_serves_from_any_folder_with_the_packaged_configuration(topic, serving):
    topic.send_state("known")
    with serving("--workers", "2", "--access-logfile", "/dev/null") as program:
        program.comes_to("known")
        assert "Using worker: app.server.worker.Worker" in program.output
        eventually(lambda: program.output.count("Following as") == 2)
        assert '"GET /state' not in program.output
        program.process.send_signal(signal.SIGTERM)
        assert program.process.wait(OWNER_ENDS_SECONDS) == 0


def test_says_its_version(topic, serving):
    with serving() as program:
        program.comes_to(0)
        version = program.get("/status").json()["version"]
    assert ended([*KAFKA_STATE, "--version"]).stdout == f"kafka-state {version}\n"


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"WEB_CONCURRENCY": "many"}, "WEB_CONCURRENCY is 'many': accepted is a whole number"),
        ({"PORT": "http"}, "PORT is 'http': accepted is a whole number, 0 to 65535"),
        ({"STATE_INITIAL": "nope"}, "STATE_INITIAL is 'nope': accepted is a JSON value"),
    ],
)
def test_a_start_that_makes_no_sense_is_one_line(environ, said):
    stopped = ended([*KAFKA_STATE, "serve"], KAFKA_TOPIC="t", **environ)
    assert stopped.returncode == 1
    assert stopped.stderr.startswith(f"Error: {said}")
    assert stopped.stderr.count("\n") == 1


def test_check_says_what_it_finds(topic):
    topic.send_state(77)
    said = check(topic)
    assert said.returncode == 0, said.stdout
    assert all(line.startswith("ok ") for line in said.stdout.splitlines()), said.stdout
    for what in ("settings", f"bootstrap server {topic.servers}", "security: PLAINTEXT", "broker "):
        assert said_of(what, said)
    assert said_of("topic", said).endswith(f"it is there, partitions: {len(topic.leaders())}")
    assert ", offset 0, of 20" in said_of("last valid message", said)
    assert said_of("last valid message", said).endswith(": 77")


def test_check_says_nothing_of_groups_where_positions_are_not_committed(topic):
    topic.send_state(77)
    said = check(topic, KAFKA_COMMIT_POSITIONS="false")
    assert said.returncode == 0, said.stdout
    assert said_of("ACLs of the topic", said)
    assert "ACLs of the groups" not in said.stdout


def test_check_of_a_topic_without_a_valid_message_tells_of_the_invalid_one(topic):
    for junk in (b"junk", b"[", b"more junk"):
        topic.send(junk)
    said = check(topic, STATE_INITIAL='"none"')
    assert said.returncode == 0, said.stdout
    assert 'the initial value is served: "none"' in said_of("last valid message", said)
    line = said_of("invalid messages", said)
    assert line.startswith(
        "note   invalid messages: 3 skipped; the last is in partition 0, offset 2: "
    )


def test_check_of_models_is_wrong_before_the_first_as_the_service_is_not_ready(topic):
    said = check(topic, STATE_LOADER="onnx")
    assert said.returncode == 1
    assert said_of("last valid message", said) == (
        "wrong  last valid message: there is none, and without a model nothing can be served"
    )


def test_status_says_why_the_service_is_not_ready(topic, serving):
    with serving(STATE_LOADER="onnx") as program:
        program.comes_to(0)
        said = ended([*KAFKA_STATE, "status", f"http://localhost:{program.port}"])
    assert said.returncode == 1
    assert "\nready       no: no model yet: the topic holds no valid message\n" in said.stdout


def test_check_tells_of_a_newer_message_that_does_not_load_now(topic, tmp_path):
    (tmp_path / "patient.py").write_text(LOADS_LATER)
    topic.send_state("now")
    topic.send_state("later")
    said = ended(
        [*KAFKA_STATE, "check"], cwd=tmp_path, **topic.environ, STATE_LOADER="patient.load"
    )
    assert said.returncode == 0, said.stdout
    assert said_of("newer message", said) == (
        "note   newer message: it does not load now, and is tried again: "
        "partition 0, offset 1, away: not yet"
    )
    assert said_of("last valid message", said).endswith('"now"')


@pytest.mark.apache_kafka
def test_check_creates_no_topic(topic_name, bootstrap_servers):
    missing = Topic(topic_name, bootstrap_servers)
    said = check(missing)
    assert said.returncode == 0
    assert said_of("topic", said) == (
        f"note   topic {topic_name}: it does not exist; the service creates it"
    )
    assert (
        topic_name not in AdminClient({"bootstrap.servers": bootstrap_servers}).list_topics().topics
    )
    said = check(missing, KAFKA_TOPIC_AUTO_CREATE="false")
    assert said.returncode == 1
    assert said_of("topic", said).startswith("wrong")


def test_check_of_a_broker_that_is_not_there_says_so(topic):
    nowhere = f"localhost:{free_port()}"
    said = check(topic, KAFKA_BOOTSTRAP_SERVERS=nowhere)
    assert said.returncode == 1
    line = said_of(f"bootstrap server {nowhere}", said)
    assert line == f"wrong  bootstrap server {nowhere}: connection refused"
    assert line == said.stdout.splitlines()[-1]
    assert said.stderr == "The service would not become ready.\n"


def test_check_of_one_server_of_two_that_is_not_there_names_it_and_goes_on(topic):
    nowhere = f"localhost:{free_port()}"
    said = check(topic, KAFKA_BOOTSTRAP_SERVERS=f"{nowhere}, {topic.servers}")
    assert said.returncode == 0, said.stdout
    assert said_of(f"bootstrap server {nowhere}", said).startswith("note ")
    assert said_of(f"bootstrap server {topic.servers}", said).startswith("ok")


@pytest.mark.own_kafka
def test_check_names_the_address_that_a_broker_is_advertised_at_and_not_reached():
    nowhere = f"localhost:{free_port()}"
    with apache_kafka.running() as kafka:
        topic = new_topic(kafka.address)
        topic.send_state(1)
        kafka.stop()
        kafka.advertise(nowhere)
        kafka.start()
        said = check(topic)
    assert said.returncode == 1, said.stdout
    assert (
        said_of("broker 1", said) == f"wrong  broker 1, advertised at {nowhere}: connection refused"
    )


def test_check_of_settings_that_make_no_sense_is_a_line(topic):
    said = check(topic, STATE_LOADER="nowhere.load", KAFKA_BROKERS="x")
    assert said.returncode == 1
    assert said_of("settings", said).startswith("wrong  settings: STATE_LOADER is 'nowhere.load'")


def test_check_finds_a_loader_in_the_folder_that_it_is_run_in(topic, tmp_path):
    (tmp_path / "shouting.py").write_text("def load(message):\n    return message.state.upper()\n")
    topic.send_state("known")
    environ = {**topic.environ, "STATE_LOADER": "shouting.load"}
    said = ended([*KAFKA_STATE, "check"], cwd=tmp_path, **environ)
    assert said.returncode == 0, said.stdout
    assert said_of("last valid message", said).endswith(': "KNOWN"')


def test_check_shows_why_a_loader_cannot_be_imported(topic, tmp_path):
    (tmp_path / "broken.py").write_text("import nowhere_to_be_found\n")
    environ = {**topic.environ, "STATE_LOADER": "broken.load"}
    said = ended([*KAFKA_STATE, "check"], cwd=tmp_path, **environ)
    assert said.returncode == 1
    assert said_of("settings", said).startswith("wrong  settings: STATE_LOADER cannot be imported")
    assert "broken.py" in said.stderr


def test_check_asks_about_a_name_that_is_like_a_known_one(topic):
    said = check(topic, KAFKA_BROKERS="x")
    assert said.returncode == 0
    (line,) = [line for line in said.stdout.splitlines() if "KAFKA_BROKERS" in line]
    assert line.startswith("note ")
    assert line.endswith("did you mean KAFKA_BOOTSTRAP_SERVERS?")


def test_check_counts_gunicorns_threads_as_serve_does(topic):
    said = check(topic, STATE_MAX_WAITING="1000")
    assert said.returncode == 1
    assert said_of("settings", said).endswith("and less than gunicorn's threads, 1000")
    more = {"STATE_MAX_WAITING": "1000", "GUNICORN_CMD_ARGS": "--bind :0 --threads=1001"}
    assert check(topic, **more).returncode == 0
    said = check(topic, GUNICORN_CMD_ARGS="--bogus")
    assert said_of("settings: GUNICORN_CMD_ARGS has --bogus", said).startswith("wrong")


def on_a_terminal(*command: str, **environ: str) -> str:
    """What a command says where its output is a terminal."""
    ours, its = pty.openpty()
    with open(ours, "rb", buffering=0) as screen:
        said = subprocess.Popen(command, stdout=its, cwd=ROOT, env={**os.environ, **environ})
        os.close(its)
        shown = b""
        with contextlib.suppress(OSError):  # as a terminal ends
            while more := screen.read(4096):
                shown += more
        assert said.wait(60) == 0
    return shown.decode()


def test_colours_and_progress_are_for_terminals_only(topic):
    sending = [*KAFKA_STATE, "produce", "--count", "50"]
    piped = ended(sending, **topic.environ)
    assert piped.stdout == f"Delivered 50 messages to {topic.name}\n"
    assert "Sending" in on_a_terminal(*sending, **topic.environ)
    checking = [*KAFKA_STATE, "check"]
    assert "\x1b" not in ended(checking, **topic.environ).stdout
    assert "\x1b[32mok" in on_a_terminal(*checking, **topic.environ)


def test_status_is_for_eyes(topic, serving):
    topic.send_state("known")
    with serving() as program:
        program.comes_to("known")
        topic.send(b"junk")
        eventually(lambda: program.get("/status").json()["last_invalid"])
        said = ended([*KAFKA_STATE, "status", f"localhost:{program.port}"])
    assert said.returncode == 0, said.stderr
    lines = dict(line.split(maxsplit=1) for line in said.stdout.splitlines())
    assert lines["topic"].startswith(topic.name)
    assert lines["following"].startswith("yes, since")
    assert lines["state"] == '"known" (partition 0, offset 0)'
    assert lines["0"].split() == ["2", "2", "0"]
    assert "1 invalid" in lines["counted"]
    assert "offset 1: json: " in lines["invalid"]


def test_status_of_nothing_is_one_line():
    said = ended([*KAFKA_STATE, "status", f"localhost:{free_port()}"])
    assert said.returncode == 1
    assert "does not answer" in said.stderr
    assert said.stderr.count("\n") == 1


def test_status_is_watched_until_ctrl_c(topic, serving, tmp_path):
    topic.send_state("known")
    with serving() as program:
        program.comes_to("known")
        seen = tmp_path / "seen"
        command = [*KAFKA_STATE, "status", "--watch", f"localhost:{program.port}"]
        with seen.open("w") as output:
            # a shell that runs the tests in the background ignores it for all of them
            command = ["env", "--default-signal=INT", *command]
            watching = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            eventually(lambda: seen.read_text().count("following   yes") >= 2)
            watching.send_signal(signal.SIGINT)
            assert watching.wait(5) == 0
        finally:
            watching.kill()
            watching.wait()
    assert "Traceback" not in seen.read_text()
