"""What a flood costs, in counts, and what is kept of it."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections import Counter

import pytest
from kafka.record.default_records import DefaultRecordBatch

from app import create_app
from app.following import validation as verdicts
from app.following.conflation import Conflation
from app.following.consumer import Consumer
from app.following.partition_reader import MESSAGE_BYTES, PartitionReader
from app.settings import Settings
from app.topic_log import batches
from app.topic_log.exchange import WAIT_MS
from tests.support.application import Service
from tests.support.waiting import eventually

WINDOW_MS = 50
BATCH_BYTES = 16_384


@pytest.fixture
def counted(monkeypatch) -> Counter[str]:
    """What reading takes: answers with messages, their bytes, records decoded, how often the thread
    is awake, and how often it looks for what came after the messages that it has read."""
    counts: Counter[str] = Counter()

    class CountedRecords(batches.MemoryRecords):
        def __init__(self, data) -> None:
            counts["fetched"] += bool(data)
            counts["bytes"] += len(data or b"")
            super().__init__(data)

    monkeypatch.setattr(batches, "MemoryRecords", CountedRecords)

    def count_calls(owner, name: str, what: str) -> None:
        original = getattr(owner, name)

        def counting(*args, **kwargs):
            counts[what] += 1
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, counting)

    count_calls(DefaultRecordBatch, "_read_msg", "decoded")
    count_calls(Consumer, "_checkpoint", "awake")
    count_calls(PartitionReader, "_take_followed", "looks")
    return counts


@pytest.fixture
def pauses(monkeypatch) -> list[float]:
    """Those that the reader makes after its looks, in seconds."""
    begun: list[float] = []
    pause_after = Conflation.pause_after

    def pause_after_and_note(conflation: Conflation, passed: int) -> float:
        if pause := pause_after(conflation, passed):
            begun.append(pause)
        return pause

    monkeypatch.setattr(Conflation, "pause_after", pause_after_and_note)
    return begun


def flood(topic, seconds: float) -> tuple[int, float]:
    """Write as much as goes; gives how many messages, and in which time."""
    producer = topic.new_producer(**{"linger.ms": 5, "batch.size": BATCH_BYTES})
    began, number = time.monotonic(), 0
    while time.monotonic() < began + seconds:
        for _ in range(1000):
            number += 1
            producer.produce(topic.name, b'{"state": %d}' % number, partition=0)
        producer.flush(10)
    return number, time.monotonic() - began


def send_invalid(topic, count: int) -> None:
    producer = topic.new_producer(**{"linger.ms": 5, "batch.size": BATCH_BYTES})
    for _ in range(count):
        producer.produce(topic.name, b"{}", partition=0)
    producer.flush(10)


@pytest.mark.apache_kafka
def test_a_flood_costs_two_fetches_a_window_however_many_messages_there_are(topic, serve, counted):
    service = serve(topic, conflate_ms=WINDOW_MS)
    service.first_state()
    counted.clear()
    sent, seconds = flood(topic, 2)
    cost = dict(counted)
    assert service.comes_to(sent)
    windows = seconds * 1000 / WINDOW_MS
    assert sent > 100 * windows
    # the first few without a pause
    assert 2 <= cost["looks"] <= windows + 5
    # one that tells where the end is, and one at the end
    assert cost["fetched"] <= 2 * (windows + 5)
    assert cost["bytes"] <= cost["fetched"] * (BATCH_BYTES + MESSAGE_BYTES + 1000)
    assert cost["decoded"] <= 10 * cost["fetched"]


@pytest.mark.apache_kafka
def test_a_flood_of_invalid_messages_is_looked_at_once_each(topic, serve, counted):
    topic.send_state("valid")
    service = serve(topic, conflate_ms=WINDOW_MS)
    assert service.first_state() == "valid"
    counted.clear()
    send_invalid(topic, sent := 5_000)
    eventually(lambda: service.status["invalid_messages"].get("schema") == sent)
    # windows that grow fetch some batches again, and decode what is after them
    assert counted["decoded"] < 3 * sent
    assert service.first_state() == "valid"


def test_is_awake_twice_a_second_while_nothing_comes(topic, serve, counted):
    topic.send_state("only")
    service = serve(topic)
    assert service.first_state() == "only"
    eventually(lambda: counted["awake"] > 4)  # what a start takes is over
    counted.clear()
    began = time.monotonic()
    eventually(lambda: counted["awake"] >= 6)
    fewest = (time.monotonic() - began) * 1000 / WAIT_MS
    assert counted["awake"] <= fewest + 2
    assert counted["decoded"] == counted["fetched"] == 0


def test_no_thread_but_the_one_that_follows_takes_part_in_reading(own_process, topic):
    topic.send_state("read")
    started = own_process.submit(threads_that_serve, topic.name, topic.servers, "read")
    assert started.result(60) == ["consumer"]


def threads_that_serve(topic: str, servers: str, state: str) -> list[str]:
    """Give what the threads are called that are there when a state is served, and not before."""
    before = threading.enumerate()
    settings = Settings(topic=topic, bootstrap_servers=servers, commit_positions=False)
    service = Service(create_app(settings))
    assert service.comes_to(state)
    started = [thread.name for thread in threading.enumerate() if thread not in before]
    service.consumer.stop(10)
    return started


def test_a_large_message_is_not_received_in_pieces_of_four_kibibytes(topic, serve, monkeypatch):
    receive, received = socket.socket.recv, []

    def receive_and_note(*args):
        received.append(len(data := receive(*args)))
        return data

    monkeypatch.setattr(socket.socket, "recv", receive_and_note, raising=False)
    topic.send_state("x" * 900_000)
    assert len(serve(topic).first_state()) == 900_000
    assert sum(received) / len(received) > 8192


def test_messages_that_come_one_by_one_are_served_without_a_pause(topic, serve):
    service = serve(topic, conflate_ms=10_000)
    assert service.first_state() == 0
    for number in range(1, 21):
        topic.send_state(number)
        assert service.comes_to(number)
    assert service.status["updates"] == 21


def test_in_a_flood_nothing_is_looked_at_in_a_pause(topic, serve, counted, pauses):
    service = serve(topic, conflate_ms=10_000)
    assert service.first_state() == 0
    topic.send_state(*range(200))
    eventually(lambda: pauses)
    state, looked = service.get().json, counted["looks"]
    topic.send_state("within the pause after them")
    assert counted["looks"] == looked
    assert service.get().json == state


def test_of_the_messages_within_a_window_the_last_is_served_and_the_others_are_skipped(
    topic, serve, pauses
):
    service = serve(topic, conflate_ms=2000)
    assert service.first_state() == 0
    topic.send_state(*range(200))
    eventually(lambda: pauses)
    before = service.status
    topic.send_state(*range(100), "last", json.dumps({"no": "state"}))
    unread = 302 - before["partitions"]["0"]["position"]
    topic.send(b"invalid", b"as well")
    assert service.comes_to(json.dumps({"no": "state"}))
    eventually(lambda: service.status["partitions"]["0"]["lag"] == 0)
    assert service.status["skipped_messages"] == before["skipped_messages"] + unread - 1
    assert service.status["updates"] == before["updates"] + 1
    assert service.status["invalid_messages"] == {"json": 2}


def test_messages_that_come_while_one_is_validated_are_skipped(topic, serve, monkeypatch):
    service = serve(topic)
    assert service.first_state() == 0
    parse = verdicts.parse_message

    def slowly(value):
        topic.send_state(*range(50)) if value == b'{"state": "slow"}' else None
        return parse(value)

    monkeypatch.setattr(verdicts, "parse_message", slowly)
    topic.send_state("slow")
    assert service.comes_to(49)
    eventually(lambda: service.status["skipped_messages"] == 49)


@pytest.mark.apache_kafka
def test_a_flood_on_every_partition_is_conflated_on_each(make_topic, serve, counted):
    topic = make_topic(partitions=3)
    service = serve(topic, conflate_ms=WINDOW_MS)
    service.first_state()
    counted.clear()
    producer = topic.new_producer(**{"linger.ms": 5, "batch.size": BATCH_BYTES})
    sent = 0
    for _ in range(30):
        for partition in range(3):
            for _ in range(500):
                sent += 1
                producer.produce(topic.name, b'{"state": %d}' % sent, partition=partition)
        producer.flush(10)
    assert service.comes_to(sent)
    eventually(lambda: all(p["lag"] == 0 for p in service.status["partitions"].values()))
    assert counted["decoded"] < sent / 10
