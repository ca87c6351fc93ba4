"""Minutes of faults drawn at random: what is served stays true, and costs no more than at first.

The seed, which is in the test's name, gives the order of the faults and what each of them draws;
what they meet differs from run to run.
"""

from __future__ import annotations

import contextlib
import json
import random
import re
import time
from collections.abc import Sequence

import pytest
import requests
from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    Message,
    TopicPartition,
)

from dev import apache_kafka
from tests.support import secure_broker
from tests.support.processes import Program, assert_all_ended
from tests.support.soak.credentials import LISTENER, MECHANISM, SECRET, USER
from tests.support.soak.faults import schedule
from tests.support.soak.footprint import Footprint
from tests.support.soak.service import CATCH_UP_SECONDS, MOST_PARTITIONS, WORKERS, Soak
from tests.support.soak.writer import TOPIC, VALID
from tests.support.waiting import eventually

pytestmark = pytest.mark.own_kafka


OVERRIDES = {
    # only the service and the faults create the topic
    "auto.create.topics.enable": "false",
    "super.users": f"User:ANONYMOUS;User:{USER}",
    f"listener.name.{LISTENER.lower()}.sasl.enabled.mechanisms": MECHANISM,
    # it is killed, and is to be back soon
    "broker.session.timeout.ms": apache_kafka.KRAFT_PROPERTIES["broker.session.timeout.ms"],
}

# the start, the last fault and the end come on top of what is asked for
SECONDS_ON_TOP = 300

# three lines and a summary a second of the updates, and as many of the invalid messages
LINES_A_SECOND = 8
# of how it starts, loses its broker and ends
LINES_A_WORKER = 60
LONGEST_LINE = 1_000

FOLLOWING = re.compile(r"\[(\d+)\] \[INFO\] Following as")


def last_valid_message(servers: str) -> Message:
    """As another client finds it, that reads all there is."""
    consumer = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": "none",
            "enable.partition.eof": True,
            # what is not there is an error, and not a reason to go to the end
            "auto.offset.reset": "error",
        }
    )
    partitions = consumer.list_topics(TOPIC, timeout=10).topics[TOPIC].partitions
    # some records may have been deleted
    consumer.assign([TopicPartition(TOPIC, number, OFFSET_BEGINNING) for number in partitions])
    tails: dict[int, Message] = {}
    unread = set(partitions)
    while unread:
        message = consumer.poll(10)
        assert message is not None, f"nothing more of {unread}"
        if error := message.error():
            assert error.code() == KafkaError._PARTITION_EOF, error
            unread.discard(message.partition())
        elif message.key() == VALID:
            tails[message.partition()] = message
    consumer.close()
    return max(tails.values(), key=lambda message: (message.timestamp()[1], message.partition()))


def place_in(answer: requests.Response) -> tuple[str | None, str | None]:
    headers = answer.headers
    return headers.get("X-State-Partition"), headers.get("X-State-Offset")


def assert_serves_the_last_valid_message(soak: Soak) -> None:
    soak.have_partitions(MOST_PARTITIONS)  # so that several are the newest
    eventually(lambda: soak.writer.write(soak.writer.valid, everywhere=True))
    soak.writer.write(*[soak.writer.invalid] * 20)
    last = last_valid_message(soak.kafka.address)
    place = str(last.partition()), str(last.offset())
    eventually(
        lambda: all(place_in(answer) == place for answer in soak.answers()),
        within=CATCH_UP_SECONDS,
    )
    on_new_connections = (requests.get(f"{soak.url}/state", timeout=10) for _ in range(50))
    for answer in (*soak.answers(), *on_new_connections):
        assert place_in(answer) == place
        assert answer.json() == json.loads(last.value())


def assert_takes_no_more_than_at_first(soak: Soak) -> None:
    def fits() -> bool:
        return all(Footprint.of(p).fits(soak.first[p]) for p in soak.program.tree())

    with contextlib.suppress(AssertionError):
        eventually(fits)
    for process in soak.program.tree():
        seconds = time.time() - process.create_time()
        print(f"{process.pid}, {seconds:.0f} s old: {soak.first[process]}; {Footprint.of(process)}")
    assert fits()


def assert_log_is_bounded(programs: Sequence[Program], seconds: float) -> None:
    lines = [line for program in programs for line in program.told]
    output = "".join(program.output for program in programs)
    workers = set(FOLLOWING.findall(output))
    print(f"{len(lines)} lines of {len(workers)} workers in {seconds:.0f} s")
    assert len(lines) < LINES_A_SECOND * WORKERS * seconds + LINES_A_WORKER * len(workers)
    assert max(map(len, lines)) < LONGEST_LINE
    assert "WORKER TIMEOUT" not in output


def assert_tells_no_secret(programs: Sequence[Program]) -> None:
    for program in programs:
        assert SECRET not in program.output


@pytest.mark.drawn_at_random("soak", seconds_on_top=SECONDS_ON_TOP)
def test_is_true_and_no_larger_after_faults_of_all_kinds(seconds, seed, tmp_path):
    began = time.monotonic()
    with secure_broker.running(OVERRIDES, listeners=["PLAINTEXT", LISTENER]) as broker:
        soak = Soak(broker, seconds, seed)
        with soak.serving(tmp_path):
            with soak.writer, soak.client:
                soak.have_partitions(3)
                soak.warm_up()
                for number, fault in enumerate(schedule(seconds, seed)):
                    soak.random = random.Random(f"{seed} {number}")
                    print(f"{time.monotonic() - began:5.0f} s: {fault.__name__}", flush=True)
                    fault(soak)
                    assert soak.client.wrong == []
                    # the next one meets a service that is well, or one that is not yet
                    soak.random.choice([soak.pause, soak.catch_up])()
                soak.writer.stop()
                assert_serves_the_last_valid_message(soak)
            assert soak.client.wrong == []
            print(f"{soak.client.answers} answers, the longest in {soak.client.longest:.1f} s")
            print(f"caught up within {soak.longest_catch_up:.1f} s")
            assert_takes_no_more_than_at_first(soak)
            processes = soak.program.tree()
            soak.program.process.terminate()
            assert soak.program.process.wait(10) == 0
            assert_log_is_bounded(soak.programs, time.monotonic() - began)
            assert_tells_no_secret(soak.programs)
    assert_all_ended(processes)
    assert broker.kafka.process.poll() is not None
