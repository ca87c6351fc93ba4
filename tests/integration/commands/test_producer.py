"""producer.py as a command."""

from __future__ import annotations

import ast
import base64
import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import time

import pytest
from confluent_kafka import Consumer, Message, TopicPartition

from dev import apache_kafka
from tests.support import models
from tests.support.processes import ROOT, free_port, producer
from tests.support.waiting import eventually

WITHIN_SECONDS = 10


def environment(topic: str, servers: str) -> dict[str, str]:
    return {**os.environ, "KAFKA_TOPIC": topic, "KAFKA_BOOTSTRAP_SERVERS": servers}


@pytest.fixture
def produce(topic):
    """Run producer.py with options, to `topic` unless told of another."""

    def run(*options: str, stdin: str = "", to=topic, servers: str = topic.servers, **environ: str):
        given = {"KAFKA_TOPIC": to.name, "KAFKA_BOOTSTRAP_SERVERS": servers} | environ
        return producer(*options, stdin=stdin, **given)

    return run


def test_sends_a_message_with_random_numbers_and_says_where_the_broker_put_it(
    produce, topic, serve
):
    shown = re.fullmatch(
        r"Sending message with value: (\{.*\})\n"
        rf"Delivered to {topic.name}, partition \d+, offset 0\n",
        produce().stdout,
    )
    value = ast.literal_eval(shown[1])
    assert list(value) == ["message_id", "text", "state"]
    assert value["message_id"].isdigit()
    assert value["text"] == "some text"
    assert isinstance(value["state"], int)
    assert serve(topic).first_state() == value["state"]


@pytest.mark.parametrize("state", ["77", "null", '{"a": [1.5, "ä"]}', '""'])
def test_sends_a_given_state(produce, topic, serve, state):
    assert produce("--state", state).returncode == 0
    assert serve(topic).first_state() == json.loads(state)


def test_a_state_that_is_not_json_is_refused(produce):
    ended = produce("--state", "nope")
    assert ended.returncode == 2
    assert "'nope' is not JSON" in ended.stderr


def test_sends_many(produce, topic, serve):
    ended = produce("--count", "2000", "--state", '"last"')
    assert ended.returncode == 0
    assert f"Delivered 2000 messages to {topic.name}\n" in ended.stdout
    assert serve(topic).first_state() == "last"


def test_keeps_to_a_rate(produce):
    began = time.monotonic()
    assert produce("--count", "5", "--rate", "4").returncode == 0
    assert time.monotonic() - began >= 1.0


def test_sends_the_lines_of_standard_input(produce, topic, serve):
    lines = "".join(f'{{"state": {number}}}\n' for number in range(40))
    ended = produce("--stdin", stdin=lines)
    assert ended.returncode == 0
    assert "Sending message with value: {'state': 0}\n" in ended.stdout
    assert "Delivered 40 messages" in ended.stdout
    # the key is none: which partition each went to is the producer's choice
    assert serve(topic).first_state() in range(40)


def test_names_the_lines_that_are_no_messages_and_sends_the_others(produce, topic, serve):
    ended = produce("--stdin", stdin='{"state": "good"}\n\nnope\n{"stat": 1}\n{"state": "last"}')
    assert ended.returncode == 1
    assert "Line 3 is not sent: not JSON" in ended.stderr
    assert "Line 4 is not sent: state is missing; accepted is a JSON object" in ended.stderr
    assert ended.stderr.endswith("Error: 2 acknowledged, 0 failed, 2 refused\n")
    assert ended.stdout.count("Delivered to") == 2


def test_options_that_exclude_each_other_are_refused(produce):
    assert produce("--stdin", "--count", "2").returncode == 2


def test_an_absent_broker_is_one_line_soon(produce):
    began = time.monotonic()
    ended = produce(servers=f"localhost:{free_port()}")
    assert time.monotonic() - began < WITHIN_SECONDS
    assert ended.returncode == 1
    assert re.fullmatch(
        r"Error: no broker can be reached: localhost:\d+: connection refused\n", ended.stderr
    )


def test_a_broker_that_accepts_and_says_nothing_is_one_line_soon(produce):
    with socket.create_server(("127.0.0.1", 0)) as mute:
        began = time.monotonic()
        ended = produce(servers=f"localhost:{mute.getsockname()[1]}")
    assert time.monotonic() - began < WITHIN_SECONDS
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1


@pytest.mark.apache_kafka
def test_messages_the_broker_refuses_are_counted_as_failed(produce, make_topic):
    small = make_topic(max_message_bytes="1000")
    lines = '{"state": 1}\n{"state": "%s"}\n{"state": 3}\n' % ("large" * 1000)
    ended = produce("--stdin", stdin=lines, to=small)
    assert ended.returncode == 1
    assert "Refused by the broker: " in ended.stderr
    assert ended.stderr.endswith("Error: 2 acknowledged, 1 failed, 0 refused\n")


def _messages(reader: Consumer) -> list[Message]:
    return [message for message in reader.consume(1000, timeout=1) if not message.error()]


@pytest.mark.apache_kafka
def test_a_broker_that_goes_away_ends_the_sending_and_every_message_is_accounted_for():
    if not apache_kafka.available():
        pytest.skip("a broker of the test's own needs java and mvn")
    with apache_kafka.running() as kafka:
        sending = subprocess.Popen(
            [sys.executable, "producer.py", "--count", "1000000", "--rate", "10000"],
            cwd=ROOT,
            env=environment("t", kafka.address),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        reader = Consumer({"bootstrap.servers": kafka.address, "group.id": "unused"})
        # from the first one on: from an offset that is not there yet it would begin at the end
        reader.assign([TopicPartition("t", 0, 0)])
        # by then some are acknowledged: five requests are under way at most, of 16 KiB each
        eventually(lambda: any(it.offset() >= 5000 for it in _messages(reader)))
        reader.close()
    _, errors = sending.communicate(timeout=40)
    assert sending.returncode == 1
    counted = re.fullmatch(
        r"Error: (\d+) acknowledged, (\d+) failed, 0 refused: .+\n", errors.splitlines(True)[-1]
    )
    assert int(counted[1]) > 100
    assert int(counted[1]) + int(counted[2]) == 1_000_000


def test_a_standard_input_that_is_closed_is_an_error(topic):
    ended = subprocess.run(
        f"{sys.executable} producer.py --stdin <&-",
        shell=True,
        cwd=ROOT,
        env=environment(topic.name, topic.servers),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2
    assert "standard input is closed" in ended.stderr


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "iris.onnx"
    path.write_bytes(models.adding(5))
    return path


def test_sends_a_model_with_its_checksum(produce, topic, serve, model):
    assert produce("--model", str(model)).returncode == 0
    sha256 = hashlib.sha256(model.read_bytes()).hexdigest()
    data = base64.b64encode(model.read_bytes()).decode()
    sent = {"name": "iris", "version": sha256[:12], "sha256": sha256, "data": data}
    assert serve(topic).first_state() == sent


def test_sends_where_a_model_is(produce, topic, serve, model):
    options = ("--uri", "s3://models/iris.onnx", "--name", "flowers", "--version", "7")
    assert produce("--model", str(model), *options).returncode == 0
    sha256 = hashlib.sha256(model.read_bytes()).hexdigest()
    uri = "s3://models/iris.onnx"
    sent = {"name": "flowers", "version": "7", "sha256": sha256, "uri": uri}
    assert serve(topic).first_state() == sent


def test_what_is_said_of_the_service_alone_does_not_matter(produce):
    assert produce("--state", "1", STATE_LOADER="onnx", MODEL_MAX_BYTES="nonsense").returncode == 0


def test_does_not_show_what_may_be_a_signature(produce, model):
    ended = produce("--model", str(model), "--uri", "https://models.example.com/x?sig=secret")
    assert ended.returncode == 0
    assert "https://models.example.com/x" in ended.stdout
    assert "secret" not in ended.stdout + ended.stderr


@pytest.mark.apache_kafka
def test_a_model_too_large_for_a_message_is_not_sent_and_told_how_to_be(produce, make_topic, model):
    model.write_bytes(models.adding(5, megabytes=0.1))
    ended = produce("--model", str(model), to=make_topic(max_message_bytes="100000"))
    assert ended.returncode == 1
    assert "--uri" in ended.stderr
    assert len(ended.stdout) < 2000


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--model", "nowhere.onnx"), "nowhere.onnx"),
        (("--uri", "s3://x"), "they need --model"),
        (("--model", "{model}", "--name", "a/b"), "--name is 'a/b'"),
        (("--model", "{model}", "--state", "1"), "excludes --state"),
        (("--model", "{model}", "--stdin"), "excludes --state, --model"),
    ],
)
def test_options_of_a_model_that_make_no_sense_are_refused(produce, model, options, said):
    ended = produce(*(option.format(model=model) for option in options))
    assert ended.returncode == 2
    assert said in ended.stderr
