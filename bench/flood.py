"""Many messages a second, from a process of its own.

As a program it reads one command a line, `TOPIC RATE SECONDS`, sends messages whose state counts
on from the last command's, as many as it can where the rate is 0, and answers with a line of
JSON: how many were sent, and when some of them were acknowledged, by time.monotonic().
"""

from __future__ import annotations

import bisect
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import KafkaError, Message, Producer

BURST = 500
# acknowledgements noted each second; each costs the sender a call
NOTED = 1000
MESSAGE = b'{"message_id":"4142","text":"some text","state":%d}'
START = 1


@dataclass(frozen=True)
class Sent:
    """What one command sent.

    Attributes:
        first, last: the states of the first and the last message.
        seconds: from the first until all were acknowledged.
        acknowledged: when, of some states, in order.
    """

    first: int
    last: int
    seconds: float
    acknowledged: list[tuple[float, int]] = field(repr=False)

    @property
    def rate(self) -> float:
        return (self.last - self.first + 1) / self.seconds

    def staleness(self, at: float, served: int) -> float:
        """For how long something newer than `served` has been acknowledged at this time."""
        newer = bisect.bisect_right(self.acknowledged, served, key=lambda noted: noted[1])
        if newer == len(self.acknowledged):
            return 0.0
        return max(at - self.acknowledged[newer][0], 0.0)


class Flood:
    """Sends what `send` is told, in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def begin(self, topic: str, rate: int, seconds: float) -> None:
        assert self._process.stdin
        print(topic, rate, seconds, file=self._process.stdin, flush=True)

    def end(self) -> Sent:
        """Wait until all is acknowledged."""
        assert self._process.stdout
        told = json.loads(self._process.stdout.readline())
        noted = [(at, state) for at, state in told.pop("acknowledged")]
        return Sent(**told, acknowledged=noted)


@contextlib.contextmanager
def flooding(servers: str) -> Iterator[Flood]:
    command = [sys.executable, "-m", "bench.flood", servers]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Flood(process)
        finally:
            process.kill()


def _send(producer: Producer, topic: str, rate: int, seconds: float, first: int) -> dict[str, Any]:
    acknowledged: list[tuple[float, int]] = []
    failures: list[KafkaError] = []

    def noting(state: int) -> Any:
        def note(error: KafkaError | None, _: Message) -> None:
            failures.append(error) if error else acknowledged.append((time.monotonic(), state))

        return note

    every = max(rate // NOTED, 1) if rate else NOTED
    began, sent = time.monotonic(), 0
    while (passed := time.monotonic() - began) < seconds:
        due = int(passed * rate) - sent if rate else BURST
        for state in range(first + sent, first + sent + min(due, BURST)):
            noted = {"on_delivery": noting(state)} if state % every == 0 else {}
            produce(producer, topic, MESSAGE % state, **noted)
            sent += 1
        producer.poll(0 if due >= BURST else 0.001)
    last = first + sent
    produce(producer, topic, MESSAGE % last, on_delivery=noting(last))
    left = producer.flush(60)
    if left or failures:
        raise RuntimeError(f"{left} not acknowledged, failures: {failures[:3]}")
    return {
        "first": first,
        "last": last,
        "seconds": time.monotonic() - began,
        "acknowledged": acknowledged,
    }


def new_producer(servers: str) -> Producer:
    """For as many messages as go."""
    return Producer({"bootstrap.servers": servers, "queue.buffering.max.messages": 500_000})


def produce(producer: Producer, topic: str, value: bytes, **options: Any) -> None:
    """Hand it to the producer as soon as there is room."""
    while True:
        try:
            producer.produce(topic, value, partition=0, **options)
            return
        except BufferError:
            producer.poll(0.01)


def main(servers: str) -> None:
    producer = new_producer(servers)
    next_state = START
    for line in sys.stdin:
        topic, rate, seconds = line.split()
        result = _send(producer, topic, int(rate), float(seconds), next_state)
        next_state = result["last"] + 1
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
