"""The service under a soak, its broker, and what the faults need of them."""

from __future__ import annotations

import contextlib
import json
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import requests
from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

from app.following.state_file import StateFile
from app.settings import Settings
from app.state import Snapshot
from dev.broker import forwarding
from tests.support.crashes import crash
from tests.support.processes import Program, free_port, gunicorn, running
from tests.support.secure_broker import SecureBroker
from tests.support.soak.client import ANSWER_SECONDS, Client
from tests.support.soak.credentials import LISTENER, Credentials
from tests.support.soak.footprint import Footprint
from tests.support.soak.writer import TOPIC, Writer
from tests.support.topics import admin_of
from tests.support.waiting import eventually

WORKERS = 2
LONGEST_PAUSE_SECONDS = 2.0
REQUEST_SECONDS = 5
BURST = 5_000
# far more than it takes: what is not there by then does not come by itself
CATCH_UP_SECONDS = 30.0
MOST_PARTITIONS = 8
KNOWING = re.compile(r"\[(\d+)\] \[(?:INFO|WARNING)\] Initializing API")
# in which what is served is on the disk
KEPT_SECONDS = 3.0


class Soak:
    """The service, its broker behind a name that stays, and what the faults need of them.

    Attributes:
        random: the present fault's own, so that what it draws depends on the seed alone.
        first: by process, what it took when it was warm.
        programs: what was started, one after the other; the last one runs.
    """

    def __init__(self, broker: SecureBroker, seconds: float, seed: int) -> None:
        self._broker = broker
        self.kafka = broker.kafka
        self.seconds = seconds
        self.random = random.Random(seed)
        self.writer = Writer(self.kafka, seed)
        self.first: dict[psutil.Process, Footprint] = {}
        self.programs: list[Program] = []
        self.longest_catch_up = 0.0
        self._port = free_port()
        self._forward = contextlib.ExitStack()
        self._running = contextlib.ExitStack()

    @contextlib.contextmanager
    def serving(self, folder: Path) -> Iterator[None]:
        self._folder = folder
        self.credentials = Credentials(self._broker, folder / "secret")
        self._environ = {
            **self.credentials.environ,
            "KAFKA_TOPIC": TOPIC,
            "KAFKA_BOOTSTRAP_SERVERS": f"localhost:{self._port}",
            "KAFKA_METADATA_MAX_AGE_MS": "1000",
            "KAFKA_REQUEST_TIMEOUT_MS": str(REQUEST_SECONDS * 1000),
            "STATE_CACHE_DIR": str(folder / "states"),
            "PORT": str(free_port()),
        }
        with self._forward, self._running:
            self.forward()
            self.start()
            self.client = Client(f"{self.url}/state")
            yield

    def start(self) -> None:
        """Start the service, and return once every worker knows the state."""
        command, port = gunicorn("--workers", str(WORKERS)), int(self._environ["PORT"])
        log = self._folder / f"output{len(self.programs)}"
        self.programs.append(
            self._running.enter_context(running(command, port, self._environ, log))
        )
        self.await_workers()

    def crash(self) -> None:
        """End the service as a power cut would."""
        self.client.is_down = True
        crash(self.program)

    @property
    def program(self) -> Program:
        return self.programs[-1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.program.port}"

    def admin(self) -> AdminClient:
        """For its caller to hold until all is answered."""
        return admin_of(self.kafka.address)

    def forward(self) -> None:
        """Have the bootstrap name lead to where the broker is now."""
        self._forward.close()
        self._forward.enter_context(forwarding(self._port, self._broker.address(LISTENER)))

    def pause(self, longest: float = LONGEST_PAUSE_SECONDS) -> None:
        time.sleep(self.random.uniform(0, longest))

    def partitions(self) -> list[int]:
        """None while the topic does not exist."""
        topic = self.admin().list_topics(timeout=10).topics.get(TOPIC)
        return sorted(topic.partitions) if topic else []

    def more_partitions(self) -> int:
        return min(len(self.partitions()) + self.random.randint(1, 3), MOST_PARTITIONS)

    def have_partitions(self, count: int) -> None:
        """Whether or not the service is faster, and creates the topic with one."""
        admin = self.admin()

        def have_them() -> bool:
            admin.create_topics([NewTopic(TOPIC, count)])[TOPIC].exception(30)
            admin.create_partitions([NewPartitions(TOPIC, count)])[TOPIC].exception(30)
            return len(self.partitions()) == count

        eventually(have_them)

    def delete_topic(self) -> None:
        """Returns when it is gone for who asks the broker, be there another one by then."""
        admin, before = self.admin(), self.topic_id()
        admin.delete_topics([TOPIC])[TOPIC].result(30)
        eventually(lambda: self.topic_id() != before)

    def topic_id(self) -> str | None:
        """None while the topic does not exist."""
        admin = self.admin()
        with contextlib.suppress(KafkaException):
            described = admin.describe_topics(TopicCollection([TOPIC]))[TOPIC].result(30)
            return str(described.topic_id)
        return None

    def workers(self) -> set[psutil.Process]:
        _, *workers = self.program.tree()
        return {worker for worker in workers if worker.status() != psutil.STATUS_ZOMBIE}

    def await_workers(self, without: set[psutil.Process] | None = None) -> None:
        """Return once as many as there should be know the state, none of the given among them."""

        def all_know() -> bool:
            with contextlib.suppress(psutil.NoSuchProcess):
                workers = self.workers()
                knowing = set(map(int, KNOWING.findall(self.program.output)))
                return (
                    len(workers) == WORKERS
                    and workers.isdisjoint(without or ())
                    and {worker.pid for worker in workers} <= knowing
                )
            return False

        eventually(all_know, within=CATCH_UP_SECONDS)

    def answers(self) -> list[requests.Response]:
        """One of each worker, for requests on one connection go to one worker."""
        by_worker = {}

        def all_answered() -> bool:
            with requests.Session() as session:
                group = session.get(f"{self.url}/status", timeout=ANSWER_SECONDS).json()["group_id"]
                by_worker[group] = session.get(f"{self.url}/state", timeout=ANSWER_SECONDS)
            return len(by_worker) == WORKERS

        eventually(all_answered)
        return list(by_worker.values())

    def versions(self) -> set[str]:
        """Of what the workers serve, which differs where they were started at other times."""
        return {answer.headers["ETag"] for answer in self.answers()}

    def kept_version(self) -> str:
        """Of what is on the disk."""
        file = StateFile(self._folder / "states", Settings.from_environ(self._environ))
        kept, _ = file.read()
        record = kept.record
        place = (record.timestamp, record.partition, record.offset, kept.topic_id) if record else ()
        return f'"{Snapshot("", *place).version}"'

    def kill_a_worker(self) -> set[psutil.Process]:
        worker = self.random.choice(sorted(self.workers(), key=lambda worker: worker.pid))
        self.client.killed_at = time.monotonic()
        worker.kill()
        return {worker}

    def warm_up(self) -> None:
        """Have each new worker do what makes it grow, and note what it takes then."""
        self.writer.write(self.writer.large, self.writer.large, everywhere=True)
        self.writer.write(*[self.writer.invalid] * BURST)
        self.writer.write(*[self.writer.valid] * BURST)
        self.catch_up()
        for process in self.program.tree():
            self.first.setdefault(process, Footprint.of(process))

    def catch_up(self, within: float = CATCH_UP_SECONDS) -> None:
        """Return once each worker serves a state that was written after this was called."""
        number = json.loads(self.writer.valid()[1])["state"]["number"]

        def is_new(answer: requests.Response) -> bool:
            state = answer.json()["state"]
            return isinstance(state, dict) and state["number"] > number

        eventually(lambda: self.writer.write(self.writer.valid, everywhere=True))
        began = time.monotonic()
        eventually(lambda: all(map(is_new, self.answers())), within=within)
        self.longest_catch_up = max(self.longest_catch_up, time.monotonic() - began)
