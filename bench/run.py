"""One run of the benchmark, and what all suites need of it."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from confluent_kafka.admin import AdminClient, NewTopic

from bench.flood import new_producer, produce
from bench.load import CONNECTIONS, STATE, Request, load
from bench.services import CLIENTS, Running, Service, running

Numbers = dict[str, Any]

# short and many, for what else this machine does changes from second to second
SLICE_SECONDS = 1.0
# of clients that ask for the state while nothing is sent
MANY_CONNECTIONS = 16
# between messages of one topic; far more than a window of conflation
LONE_SECONDS = 0.09


def new_topic(
    servers: str, partitions: int = 1, config: Mapping[str, str] = MappingProxyType({})
) -> str:
    name = f"bench-{uuid.uuid4().hex[:8]}"
    admin = AdminClient({"bootstrap.servers": servers, "log_level": 3})
    admin.create_topics([NewTopic(name, partitions, config=dict(config))])[name].result(30)
    return name


@dataclass
class Bench:
    """One run: its broker, how often and for how long it measures, and where it says how far
    it is."""

    servers: str
    folder: Path
    repeats: int
    slices: int
    seconds: float
    patience: float
    progress: Callable[[str], None]

    @property
    def few(self) -> int:
        """How often to measure what takes long, or is far from its bar."""
        return (self.repeats + 1) // 2

    def topic(self, partitions: int = 1, config: Mapping[str, str] = MappingProxyType({})) -> str:
        return new_topic(self.servers, partitions, config)

    def send(self, topic: str, values: Iterator[bytes]) -> None:
        producer = new_producer(self.servers)
        for value in values:
            produce(producer, topic, value)
        assert producer.flush(120) == 0

    @contextlib.contextmanager
    def serving(
        self, service: Service, topic: str, state: Any, **environ: str
    ) -> Iterator[Running]:
        """Run it until it serves `state`, and then for as long as the block."""
        with running(service, self.servers, topic, self.folder, **environ) as served:
            if service in CLIENTS:
                served.wait_for_starts(1)
                served.note_following_threads()
            served.wait_for(state)
            yield served


def loaded(
    served: Running,
    request: Request = STATE,
    connections: int = CONNECTIONS,
    seconds: float = SLICE_SECONDS,
) -> dict[str, float]:
    """Ask for a slice of time; gives `rate` (a second), `p99` (seconds), and the processor time that
    an answer took (seconds): `cpu` in all workers, `busiest` in the one where it was most, `load`
    in whoever asked."""
    before, asking, began = served.cpu_seconds, _own_cpu_seconds(), time.monotonic()
    answered = load(served.port, seconds, request, connections)
    answers = answered.rate * (time.monotonic() - began)
    taken = [now - then for now, then in zip(served.cpu_seconds, before, strict=True)]
    return {
        **asdict(answered),
        "cpu": sum(taken) / answers,
        "busiest": max(taken) / answers,
        "load": (_own_cpu_seconds() - asking) / answers,
    }


def _own_cpu_seconds() -> float:
    """What this process has taken, and those that it has started and that have ended."""
    return sum(os.times()[:4])


def warm_up(served: Running, request: Request = STATE, connections: int = CONNECTIONS) -> None:
    """The first answers take longer: threads are made, and code is run for the first time."""
    load(served.port, SLICE_SECONDS, request, connections)
