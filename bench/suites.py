"""What is measured, and how: each suite gives its raw numbers, every repetition of them."""

from __future__ import annotations

import contextlib
import itertools
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from confluent_kafka import Producer

from bench.flood import Flood, Sent, flooding
from bench.load import load
from bench.models import model_steps, models
from bench.run import MANY_CONNECTIONS, SLICE_SECONDS, Bench, Numbers, loaded, warm_up
from bench.services import (
    BARE_FLASK,
    BARE_WSGI,
    CLIENTS,
    FASTAPI,
    FLASK_LOOP,
    OURS,
    OURS_3,
    Client,
    Running,
    running,
)
from bench.swaps import swap_steps, swaps
from bench.workers import worker_steps, workers

PEERS = (FASTAPI, FLASK_LOOP)
# of the messages on one topic whose way is measured
PERIOD_SECONDS = 1 / 30
AS_MANY_AS_GO = 0
COMPARED_RATE = 50_000
RATES = (10_000, COMPARED_RATE, AS_MANY_AS_GO)
PARTITIONS = (1, 200, 1000)

# until what a start takes is over
SETTLE_SECONDS = 3.0
SAMPLE_SECONDS = 0.01
# the flood begins before the load, and ends after it
LEAD_SECONDS = 0.3
TRAIL_SECONDS = 0.1
FEW, MANY, INVALID = 100, 1_000_000, 100_000
MEMORY_SECONDS, MEMORY_STEPS = 600.0, 60
NOT_JSON, NO_STATE = b"no JSON at all, but about as long as a message", b'{"text":"but no state"}'

# of the topic that is flooded for ten minutes; the others are not, for a broker stalls when it
# begins a new file
KEPT = {"retention.bytes": "300000000", "segment.bytes": "100000000"}


class Sampler:
    """Asks for the state again and again, and notes when, and what it was told."""

    def __init__(self, port: int) -> None:
        self._client = Client(port)
        self.samples: list[tuple[float, int]] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        while not self._stopping.wait(SAMPLE_SECONDS):
            asked = time.monotonic()
            self.samples.append((asked, self._client.state()))

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(60)
        self._client.close()

    def came_to(self, state: int, patience: float) -> float | None:
        """When it asked and was told this state, if it is within `patience` seconds."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if self.samples and self.samples[-1][1] >= state:
                return next(at for at, told in self.samples if told >= state)
            time.sleep(SAMPLE_SECONDS)
        return None


@contextlib.contextmanager
def sampling(port: int) -> Iterator[Sampler]:
    sampler = Sampler(port)
    sampler.start()
    try:
        yield sampler
    finally:
        sampler.stop()


def _under_flood(
    bench: Bench,
    served: Running,
    flood: Flood,
    topic: str,
    rate: int,
    seconds: float,
    followed: bool,
) -> Numbers:
    """Load on the service for `seconds` while there is a flood on `topic`."""
    flood.begin(topic, rate, LEAD_SECONDS + seconds + TRAIL_SECONDS)
    time.sleep(LEAD_SECONDS)
    with sampling(served.port) as sampler:
        spent, fetched = served.following_seconds(), served.bytes_fetched(bench.servers)
        began = time.monotonic()
        answered = load(served.port, seconds)
        took = time.monotonic() - began
        spent = served.following_seconds() - spent
        fetched_after = served.bytes_fetched(bench.servers)
        sent = flood.end()
        if not followed:
            return {"sent": sent.rate, "rate": answered.rate, "p99": answered.p99}
        came = sampler.came_to(sent.last, bench.patience)
    ended = sent.acknowledged[-1][0]
    return {
        "sent": sent.rate,
        "rate": answered.rate,
        "p99": answered.p99,
        "staleness": [sent.staleness(at, state) for at, state in sampler.samples if at < ended],
        "end": None if came is None else max(came - ended, 0.0),
        "cpu": spent / took,
        "bytes": None
        if fetched is None or fetched_after is None
        else (fetched_after - fetched) / took,
    }


def flood(bench: Bench) -> Numbers:
    """Requests, staleness and cost with a flood on the topic, and with the same on another."""
    numbers: Numbers = {}
    with flooding(bench.servers) as source:
        for service in CLIENTS:
            followed, other = bench.topic(), bench.topic()
            with bench.serving(service, followed, 0) as served:
                warm_up(served)
                for rate in RATES:
                    pairs = []
                    for number in range(bench.slices):
                        # first the one, then the other, and the other way round
                        order = (followed, other) if number % 2 else (other, followed)
                        measured = {}
                        for topic in order:
                            bench.progress(f"{service.name}, flood of {rate or 'as many as go'}")
                            measured[topic] = _under_flood(
                                bench,
                                served,
                                source,
                                topic,
                                rate,
                                SLICE_SECONDS,
                                followed=topic == followed,
                            )
                        pairs.append({"on": measured[followed], "off": measured[other]})
                    numbers.setdefault(service.name, {})[str(rate)] = pairs
    return numbers


def peers(bench: Bench) -> Numbers:
    """The same floods for this service and its peers by turns, each on the topic that it follows."""
    numbers: Numbers = {}
    with flooding(bench.servers) as source:
        for rate, _ in itertools.product(RATES, range(bench.few)):
            for service in (*CLIENTS, *PEERS):
                bench.progress(f"{service.name}, flood of {rate or 'as many as go'}")
                # a new one each time: from the last a peer may have a backlog of a minute
                topic = bench.topic()
                with bench.serving(service, topic, 0) as served:
                    warm_up(served)
                    measured = _under_flood(
                        bench, served, source, topic, rate, bench.seconds, followed=True
                    )
                numbers.setdefault(service.name, {}).setdefault(str(rate), []).append(
                    {"on": measured}
                )
    return numbers


def requests(bench: Bench) -> Numbers:
    """Requests a second while nothing is sent, by turns, and the bare limits."""
    topic = bench.topic()
    bench.send(topic, iter([b'{"state":77}']))
    numbers: Numbers = {}
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(bench.serving(OURS, topic, 77))
        headers, body = Client(ours.port).get()
        set_by_gunicorn = {"Server", "Date", "Connection"}
        answer = json.dumps(
            {"headers": [pair for pair in headers if pair[0] not in set_by_gunicorn], "body": body}
        )
        served = {OURS.name: ours}
        for service in (OURS_3, BARE_WSGI, BARE_FLASK, FASTAPI, FLASK_LOOP):
            served[service.name] = stack.enter_context(
                bench.serving(service, topic, 77, BENCH_ANSWER=answer)
            )
        for at in served.values():
            warm_up(at)
        for _ in range(bench.slices):
            for name, at in served.items():
                bench.progress(f"{name}, no flood")
                numbers.setdefault(name, []).append(loaded(at, connections=MANY_CONNECTIONS))
    return numbers


def lone(bench: Bench) -> Numbers:
    """From before a message is sent until it is seen, thirty a second on each topic by turns."""
    with contextlib.ExitStack() as stack:
        seen: dict[str, dict[int, float]] = {}
        topics = {}
        for service in CLIENTS:
            topics[service.name] = topic = bench.topic()
            served = stack.enter_context(bench.serving(service, topic, 0))
            command = [sys.executable, "-m", "bench.stream_reader", str(served.port)]
            seen[service.name] = stack.enter_context(_reading(command))
        topics["librdkafka"] = topic = bench.topic()
        command = [sys.executable, "-m", "bench.peers.librdkafka_reader", bench.servers, topic]
        seen["librdkafka"] = stack.enter_context(_reading(command))
        producer = Producer({"bootstrap.servers": bench.servers, "linger.ms": 0})
        sent: dict[str, dict[int, float]] = {name: {} for name in topics}
        rounds = 120 * bench.repeats
        time.sleep(SETTLE_SECONDS)
        for number in range(rounds + 1):
            if number % 120 == 0:
                bench.progress("a lone message")
            for name, topic in topics.items():
                at = time.monotonic()
                producer.produce(topic, b'{"state":%d}' % number, partition=0)
                assert producer.flush(10) == 0
                sent[name][number] = at
                time.sleep(max(at + PERIOD_SECONDS / len(topics) - time.monotonic(), 0))
        time.sleep(1)
    numbers: Numbers = {}
    for name in topics:
        # the first opens the producer's connection
        missed = [n for n in range(1, rounds + 1) if n not in seen[name]]
        assert not missed, f"{name} did not see {missed}"
        numbers[name] = [seen[name][n] - sent[name][n] for n in range(1, rounds + 1)]
    return numbers


@contextlib.contextmanager
def _reading(command: Sequence[str]) -> Iterator[dict[int, float]]:
    """By offset, when the program said that it saw the message."""
    seen: dict[int, float] = {}

    def read() -> None:
        assert process.stdout
        for line in process.stdout:
            offset, at = line.split()
            seen.setdefault(int(offset), float(at))

    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        reader = threading.Thread(target=read)
        reader.start()
        try:
            yield seen
        finally:
            process.kill()
            reader.join(10)


def start(bench: Bench) -> Numbers:
    """From the start of the process until the last message is served."""
    few, many = bench.topic(), bench.topic()
    for topic, count in ((few, FEW), (many, MANY)):
        bench.send(topic, (b'{"message_id":"4142","state":%d}' % n for n in range(count)))
    numbers: Numbers = {}
    for number in range(bench.repeats):
        for service in (*CLIENTS, FASTAPI):
            if service is FASTAPI and number >= bench.few:
                continue
            for topic, count in ((few, FEW), (many, MANY)):
                bench.progress(f"start of {service.name} on {count}")
                with running(service, bench.servers, topic, bench.folder) as served:
                    seconds = served.wait_for(count - 1)
                numbers.setdefault(service.name, {}).setdefault(str(count), []).append(seconds)
    return numbers


def invalid(bench: Bench) -> Numbers:
    """The same where the last 100 000 messages are none."""
    numbers: Numbers = {}
    for label, value in (("not JSON", NOT_JSON), ("no state", NO_STATE)):
        topic = bench.topic()
        bench.send(topic, itertools.chain([b'{"state":77}'], itertools.repeat(value, INVALID)))
        for _ in range(bench.few):
            for service in CLIENTS:
                bench.progress(f"start of {service.name} on {INVALID} messages with {label}")
                with running(service, bench.servers, topic, bench.folder) as served:
                    seconds = served.wait_for(77)
                numbers.setdefault(service.name, {}).setdefault(label, []).append(seconds)
    return numbers


def idle(bench: Bench) -> Numbers:
    """What following costs while nothing comes."""
    numbers: Numbers = {service.name: {} for service in CLIENTS}
    for partitions in PARTITIONS:
        topic = bench.topic(partitions)
        with contextlib.ExitStack() as stack:
            served = {
                service.name: stack.enter_context(bench.serving(service, topic, 0))
                for service in CLIENTS
            }
            time.sleep(SETTLE_SECONDS)
            for _ in range(bench.few):
                bench.progress(f"nothing to do, {partitions} partitions")
                before = {name: at.following_seconds() for name, at in served.items()}
                time.sleep(2 * bench.seconds)
                for name, at in served.items():
                    spent = at.following_seconds() - before[name]
                    shares = numbers[name].setdefault(str(partitions), [])
                    shares.append(spent / (2 * bench.seconds))
    return numbers


def memory(bench: Bench) -> Numbers:
    """Ten minutes of flood; the memory that both take of it, every ten seconds."""
    topic = bench.topic(config=KEPT)
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(flooding(bench.servers))
        served = {
            service.name: stack.enter_context(bench.serving(service, topic, 0))
            for service in CLIENTS
        }
        numbers: Numbers = {name: [] for name in served}
        source.begin(topic, 50_000, MEMORY_SECONDS)
        for _ in range(MEMORY_STEPS):
            bench.progress("ten minutes of flood")
            time.sleep(MEMORY_SECONDS / MEMORY_STEPS)
            for name, at in served.items():
                Client(at.port).get()
                numbers[name].append(at.worker.memory_info().rss)
        sent: Sent = source.end()
        for at in served.values():
            at.wait_for(sent.last)
    return numbers | {"messages": sent.last - sent.first + 1}


@dataclass(frozen=True)
class Suite:
    """Measurements that belong together.

    Attributes:
        steps: how often it says how far it is.
    """

    measure: Callable[[Bench], Numbers]
    steps: Callable[[Bench], int]


SUITES = {
    "requests": Suite(requests, lambda bench: 6 * bench.slices),
    "lone": Suite(lone, lambda bench: bench.repeats + 1),
    "start": Suite(start, lambda bench: 2 * (2 * bench.repeats + bench.few)),
    "invalid": Suite(invalid, lambda bench: 2 * 2 * bench.few),
    "idle": Suite(idle, lambda bench: len(PARTITIONS) * bench.few),
    "flood": Suite(flood, lambda bench: 2 * 2 * len(RATES) * bench.slices),
    "peers": Suite(peers, lambda bench: 4 * len(RATES) * bench.few),
    "models": Suite(models, model_steps),
    "swaps": Suite(swaps, swap_steps),
    "workers": Suite(workers, worker_steps),
    "memory": Suite(memory, lambda _: MEMORY_STEPS),
}
