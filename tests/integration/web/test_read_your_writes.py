"""`min_offset` and the counters, while more messages come than anyone reads."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator

import pytest

from tests.support.waiting import eventually


@pytest.fixture
def flooded():
    """A topic to which valid and invalid messages are written as fast as they go."""

    @contextlib.contextmanager
    def flood(topic) -> Iterator[None]:
        done = threading.Event()

        def write() -> None:
            producer = topic.new_producer()
            number = 0
            while not done.is_set():
                for _ in range(500):
                    number += 1
                    value = b"junk" if number % 3 else json.dumps({"state": -number}).encode()
                    producer.produce(topic.name, value, partition=0)
                producer.flush(10)

        thread = threading.Thread(target=write)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    return flood


@pytest.mark.parametrize("written", [b'{"state": "mine"}', b"invalid"])
def test_a_write_is_in_what_is_read_after_it_while_a_flood_is_conflated(
    topic, serve, flooded, written
):
    service = serve(topic)
    service.first_state()
    client = service.app.test_client()
    mine: list[int] = []
    with flooded(topic):
        for _ in range(30):
            mine.append(acknowledged(topic, written))
            asked = f"/state?min_offset=0:{mine[-1]}"
            answer = client.get(asked, headers={"Prefer": "wait=30"})
            assert answer.status_code == 200, answer.text
            served = int(answer.headers.get("X-State-Offset", -1))
            # every third of the flood is valid: where mine are not, one of them is right before
            invalid = range(served + 1, mine[-1] + 1)
            assert len(invalid) - sum(offset in invalid for offset in mine) <= 2
            assert served >= mine[-1] or written == b"invalid"
    eventually(lambda: service.status["skipped_messages"] > 0)


def acknowledged(topic, value: bytes) -> int:
    """Write, and give the offset that the broker acknowledges."""
    offsets: list[int] = []
    topic.producer.produce(
        topic.name,
        value,
        partition=0,
        on_delivery=lambda _, message: offsets.append(message.offset()),
    )
    assert topic.producer.flush(30) == 0
    return offsets[0]


@pytest.mark.parametrize("conflate_ms", [0, 50])
def test_every_message_of_a_flood_is_an_update_or_invalid_or_skipped(topic, serve, conflate_ms):
    service = serve(topic, conflate_ms=conflate_ms)
    service.first_state()
    known = service.status["updates"]
    for batch in range(10):
        topic.send(*[b"junk", b'{"state": 1}'] * 250, json.dumps({"state": batch}).encode())

    def counted() -> int:
        now = service.status
        invalid = sum(now["invalid_messages"].values())
        return now["updates"] - known + invalid + now["skipped_messages"]

    eventually(lambda: counted() == 10 * 501)


def test_who_is_served_an_update_finds_it_counted(topic, serve):
    service = serve(topic)
    service.first_state()
    state = service.state
    served_when_counted = {}

    def note(status) -> None:
        served_when_counted.setdefault(status.updates, state.read().json)

    service.consumer._reporter._reports.append(note)
    topic.send_state("new")
    assert service.comes_to("new")
    assert served_when_counted[2] == "0"
