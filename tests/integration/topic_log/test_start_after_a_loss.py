"""A broker that has gone when the service starts, and what becomes of what is on the disk."""

from __future__ import annotations

import time

import pytest
import requests

from dev import apache_kafka
from tests.support.asking import asking
from tests.support.crashes import Serve, crashed, kept, reload, seconds_to_serve
from tests.support.processes import following
from tests.support.topics import Topic, new_topic
from tests.support.waiting import eventually

pytestmark = [pytest.mark.own_kafka, pytest.mark.xdist_group("start after a loss")]

LOST = {"stop": "connection refused", "freeze": "no answer within 2 s"}


@pytest.fixture(scope="module")
def shared_kafka():
    with apache_kafka.running() as kafka:
        yield kafka


@pytest.fixture
def kafka(shared_kafka):
    """A broker to break, whole whatever the test before did."""
    shared_kafka.restore()
    return shared_kafka


@pytest.fixture
def topic(kafka) -> Topic:
    return new_topic(kafka.address)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "states"


@pytest.fixture
def serve(topic, tmp_path, folder) -> Serve:
    """Run the program on the topic, once after the other."""
    runs = iter(range(100))

    def serve(*options: str, **environ: str):
        output = tmp_path / f"output{next(runs)}"
        return following(topic, output, *options, STATE_CACHE_DIR=str(folder), **environ)

    return serve


@pytest.mark.alone
@pytest.mark.parametrize(("lose", "why"), LOST.items(), ids=LOST)
def test_after_a_crash_it_serves_the_last_state_at_once_and_is_current_later(
    kafka, topic, serve, folder, lose, why
):
    topic.send_state("before", "last")
    with crashed(serve(), folder, "last") as etag:
        getattr(kafka, lose)()
    with serve("--workers", "2", LOG_FORMAT="json") as program:
        answer = eventually(program.get)
        assert answer.json() == {"state": "last"}
        assert answer.headers["ETag"] == etag
        assert int(answer.headers["X-State-Stale"]) >= 0
        eventually(lambda: program.get("/readyz").json()["cached"].endswith(why))
        status = program.get("/status").json()
        assert status["cached"] is True
        assert status["stale_seconds"] > 0
        assert "kafka_state_stale_seconds" in program.get("/metrics").text
        url = f"http://127.0.0.1:{program.port}/state?min_offset=0:1"
        unread = requests.get(url, headers={"Prefer": "wait=0"}, timeout=5)
        assert unread.status_code == 503
        assert "is not known before the log is" in unread.json()["detail"]
        assert seconds_to_serve(program, workers=2) < 0.5
        kafka.restore()
        eventually(lambda: "X-State-Stale" not in program.get().headers)
        assert program.get("/state?min_offset=0:1").headers["ETag"] == etag
        topic.send_state("new", producer=topic.new_producer())
        program.comes_to("new")
        eventually(lambda: kept(folder) == ["new"])


def test_a_reload_while_no_broker_answers_loses_nothing_and_fails_no_request(
    kafka, topic, serve, folder
):
    topic.send_state("last")
    with serve("--workers", "2") as program:
        eventually(lambda: program.output.count("Initializing API with data") == 2)
        eventually(lambda: kept(folder) == ["last"])
        kafka.kill()
        with asking(program) as answers:
            for _ in range(2):
                reload(program)
            asked = len(answers)
            eventually(lambda: len(answers) > asked + 20)
        assert {answer and answer.text for answer in answers} == {'{"state":"last"}'}
        kafka.start()
        topic.send_state("new", producer=topic.new_producer())
        program.comes_to("new")


def test_a_log_that_was_lost_overrules_what_is_on_the_disk(kafka, topic, serve, folder):
    topic.send_state("last")
    with crashed(serve(), folder, "last"):
        kafka.kill()
        kafka.wipe()
    with serve() as program:
        program.comes_to("last")
        kafka.start()
        program.comes_to(0)  # of the topic that it has created
        eventually(lambda: "X-State-Stale" not in program.get().headers)
        eventually(lambda: not kept(folder))
        an_hour_ago = int(time.time() - 3600) * 1000
        Topic(topic.name, kafka.address).send_state("older", timestamp=an_hour_ago)
        program.comes_to("older")
        eventually(lambda: kept(folder) == ["older"])
    kafka.kill()
    with serve() as program:
        program.comes_to("older")
