"""What the producer does after it has sent: wait, send again, and end early."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import click
import pytest
from confluent_kafka import Consumer, Message, TopicPartition
from onnx import TensorProto, helper

from app.commands.client import ServiceClient
from app.commands.waiting import wait_until_served
from tests.support import models
from tests.support.processes import ROOT, following, free_port, kafka_state, producer
from tests.support.topics import Topic, offsets_of
from tests.support.waiting import eventually

# with one partition, as the embedded broker's topics have not
pytestmark = pytest.mark.apache_kafka

# refuses what is no number, and takes 0 later
LOADER = """
from pathlib import Path
from app.loaders.protocol import InvalidMessage, RetryableError

def load(message):
    if message.state == 0 and not Path("ready").exists():
        raise RetryableError("not_there", "it is not there yet")
    if not isinstance(message.state, int):
        raise InvalidMessage("number", "accepted is a number")
    return message.state
"""


@pytest.fixture
def produce(topic):
    def run(*options: str) -> subprocess.CompletedProcess[str]:
        return producer(*options, **topic.environ)

    return run


@pytest.fixture
def folder(tmp_path):
    """One with a loader of one's own."""
    (tmp_path / "number.py").write_text(LOADER)
    for name in ("wsgi.py", "gunicorn.conf.py"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def serving(topic, folder, **environ: str):
    return following(topic, folder / "output", cwd=folder, STATE_LOADER="number.load", **environ)


@pytest.fixture
def service(topic, folder):
    topic.send_state(1)
    with serving(topic, folder) as program:
        program.comes_to(1)
        yield program


def test_what_was_waited_for_is_served(produce, service):
    for state in range(2, 10):
        sent = produce("--state", str(state), "--wait", f"localhost:{service.port}")
        assert sent.returncode == 0, sent.stderr
        assert service.get().json() == {"state": state}
    assert sent.stdout.endswith(
        f"Served by http://localhost:{service.port}: partition 0, offset 8\n"
    )


def test_many_are_waited_for_by_the_last(produce, service):
    url = f"http://localhost:{service.port}/"
    assert produce("--state", "7", "--count", "500", "--wait", url).returncode == 0
    assert service.get().json() == {"state": 7}


def test_what_is_refused_is_told_and_ends_with_1(produce, service):
    sent = produce("--state", '"text"', "--wait", f"localhost:{service.port}")
    assert sent.returncode == 1
    assert sent.stderr == (
        f"Error: Refused by http://localhost:{service.port}: partition 0, offset 1: "
        "number: accepted is a number\n"
    )
    assert service.get().json() == {"state": 1}


def test_what_is_refused_is_told_where_later_ones_are_refused_too(topic, service):
    topic.send_state("first", "second")
    with pytest.raises(click.ClickException, match="offset 1: number: accepted is a number"):
        wait_until_served(ServiceClient(f"localhost:{service.port}"), {0: 1})


def test_many_of_which_the_last_is_refused_end_with_1(produce, service):
    options = ["--state", '"text"', "--count", "500"]
    sent = produce(*options, "--wait", f"localhost:{service.port}")
    assert sent.returncode == 1
    assert "partition 0, offset 500: number: accepted is a number" in sent.stderr


def test_a_line_that_is_not_sent_says_that_nothing_was_waited_for(topic, service):
    url = f"http://localhost:{service.port}"
    sent = producer("--stdin", "--wait", url, stdin='{"state": 2}\nnope', **topic.environ)
    assert sent.returncode == 1
    assert sent.stderr.endswith(
        f"Error: 1 acknowledged, 0 failed, 1 refused; {url} is not asked whether it serves them\n"
    )


def test_what_is_not_there_yet_is_told_and_waited_for(topic, service, tmp_path):
    command = [*kafka_state(), "produce", "--state", "0", "--wait", f"localhost:{service.port}"]
    with Ended(command, topic.environ, tmp_path / "said") as waiting:
        eventually(lambda: "Not yet served: not_there: it is not there yet" in waiting.output)
        (tmp_path / "ready").touch()
        assert waiting.process.wait(30) == 0
        assert "Served by" in waiting.output
    assert service.get().json() == {"state": 0}


def test_a_service_that_lets_nobody_wait_is_not_asked_without_end(topic, folder, tmp_path):
    topic.send_state(1)
    with serving(topic, folder, STATE_MAX_WAITING="0") as program:
        program.comes_to(1)
        asked = f"localhost:{program.port}"
        command = [*kafka_state(), "produce", "--state", "0", "--wait", asked]
        with Ended(command, topic.environ, tmp_path / "said") as waiting:
            eventually(lambda: "Not yet served" in waiting.output)
            time.sleep(2)
            (folder / "ready").touch()
            assert waiting.process.wait(30) == 0
        assert program.output.count("GET /state?min_offset") < 50


def test_a_service_of_another_topic_is_named(topic, make_topic, service):
    other = make_topic()
    sent = producer(
        "--wait",
        f"localhost:{service.port}",
        **other.environ,
    )
    assert sent.returncode == 1
    assert f"follows {topic.name}, not {other.name}" in sent.stderr


def test_nothing_is_sent_where_nobody_would_serve_it(topic, produce, service):
    nobody = f"localhost:{free_port()}"
    for url, said in ((nobody, "does not answer"), (f"localhost:{service.port}/state", "404")):
        sent = produce("--wait", url)
        assert sent.returncode == 1
        assert sent.stderr.startswith(f"Error: Nothing is sent: http://{url}")
        assert said in sent.stderr
        assert sent.stderr.count("\n") == 1
    assert offsets_of(topic)[1] == 1


def test_an_earlier_message_sent_again_is_the_state(topic, produce, service):
    topic.send_state(2)
    service.comes_to(2)
    sent = produce("--again", "0:0", "--wait", f"localhost:{service.port}")
    assert sent.returncode == 0, sent.stderr
    assert service.get().json() == {"state": 1}
    assert service.get().headers["X-State-Offset"] == "2"


def messages_of(topic: Topic, partition: int) -> list[Message]:
    reader = Consumer({"bootstrap.servers": topic.servers, "group.id": "unused"})
    reader.assign([TopicPartition(topic.name, partition, 0)])
    try:
        return reader.consume(2, timeout=10)
    finally:
        reader.close()


def test_what_is_sent_again_has_its_key_and_its_partition(make_topic):
    topic = make_topic(partitions=3)
    topic.send_state("kept", partition=2, key=b"k")
    sent = producer("--again", "2:0", **topic.environ)
    assert sent.stdout.endswith(f"Delivered to {topic.name}, partition 2, offset 1\n"), sent.stderr
    assert [message.key() for message in messages_of(topic, 2)] == [b"k", b"k"]


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("0:99", "has no message at offset 99"),
        ("7:0", "has no partition 7: it has 1, counted from 0"),
        ("0:1", "it is not valid: json"),
    ],
)
def test_what_cannot_be_sent_again_is_told(topic, produce, place, said):
    topic.send_state(1)
    topic.send(b"junk")
    sent = produce("--again", place)
    assert sent.returncode == 1
    assert said in sent.stderr
    assert sent.stderr.count("\n") == 1


def test_a_place_that_is_none_is_refused(produce):
    sent = produce("--again", "latest")
    assert sent.returncode == 2
    assert "accepted is PARTITION:OFFSET" in sent.stderr


def with_zipmap() -> bytes:
    """Like what skl2onnx makes of a classifier: its probabilities are a list of maps."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 2])
    item = helper.make_map_type_proto(
        TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, [])
    )
    probabilities = helper.make_value_info("probabilities", helper.make_sequence_type_proto(item))
    node = helper.make_node(
        "ZipMap", ["x"], ["probabilities"], domain="ai.onnx.ml", classlabels_int64s=[0, 1]
    )
    return models.as_bytes([node], [x], [probabilities])


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (b"hello", "model: accepted is ONNX"),
        (models.with_external_data(), "external_data: accepted are models that have all"),
        (with_zipmap(), "zipmap=False"),
        (models.passing_on(TensorProto.COMPLEX64), "model: "),
    ],
)
@pytest.mark.parametrize("uri", [(), ("--uri", "s3://models/x.onnx")])
def test_a_model_that_no_instance_would_serve_is_not_sent(produce, tmp_path, model, said, uri):
    path = tmp_path / "x.onnx"
    path.write_bytes(model)
    sent = produce("--model", str(path), *uri)
    assert sent.returncode == 1
    assert f"{path} is not sent, for no instance would serve it: " in sent.stderr
    assert said in sent.stderr
    assert sent.stdout == ""


def test_a_model_whose_requests_are_large_is_sent_for_an_instance_may_take_them(produce, tmp_path):
    path = tmp_path / "x.onnx"
    path.write_bytes(models.of_many(9_000_000))
    sent = produce("--model", str(path))
    assert sent.returncode == 0, sent.stderr


def test_a_model_can_be_sent_by_who_can_keep_none(topic, tmp_path):
    path = tmp_path / "x.onnx"
    path.write_bytes(models.adding(1))
    sent = producer("--model", str(path), **topic.environ, XDG_CACHE_HOME="/proc/nowhere")
    assert sent.returncode == 0, sent.stderr


def test_a_model_is_shown_without_its_base64(produce, tmp_path):
    path = tmp_path / "x.onnx"
    path.write_bytes(models.adding(1))
    sent = produce("--model", str(path))
    assert sent.returncode == 0, sent.stderr
    assert "characters of base64)'" in sent.stdout


class Ended:
    """A command that is still at work, to be interrupted."""

    def __init__(self, command, environ, said) -> None:
        self._said = said
        with said.open("w") as output:
            self.process = subprocess.Popen(
                command, env={**os.environ, **environ}, stdout=output, stderr=output, cwd=ROOT
            )

    @property
    def output(self) -> str:
        return self._said.read_text()

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def sending(topic, tmp_path):
    """A producer that sends for minutes, with what else it is told."""

    def start() -> Ended:
        command = [sys.executable, "producer.py", "--count", "100000", "--rate", "200"]
        return Ended(command, topic.environ, tmp_path / "said")

    return start


def test_ctrl_c_says_how_many_were_delivered(topic, sending):
    with sending() as at_work:
        eventually(lambda: offsets_of(topic)[1] > 20)
        at_work.process.send_signal(signal.SIGINT)
        assert at_work.process.wait(10) == 1
        said = at_work.output
    delivered = offsets_of(topic)[1]
    assert said.endswith(
        f"Error: interrupted: {delivered} of {delivered} sent were acknowledged\n"
    ), said[-300:]


@pytest.mark.parametrize(
    "command", [[sys.executable, "producer.py"], [*kafka_state(), "produce"], [*kafka_state()]]
)
def test_a_ctrl_c_before_it_has_begun_is_quiet(tmp_path, command):
    """It is importing what it needs, of which something takes long here."""
    (tmp_path / "flask.py").write_text(
        "import pathlib, sys, time\n"
        "pathlib.Path(__file__).with_name('importing').touch()\n"
        "time.sleep(30)\n"
    )
    with Ended(command, {"PYTHONPATH": str(tmp_path)}, tmp_path / "said") as at_work:
        eventually((tmp_path / "importing").exists)
        at_work.process.send_signal(signal.SIGINT)
        assert at_work.process.wait(5) == -signal.SIGINT
        assert at_work.output == ""
