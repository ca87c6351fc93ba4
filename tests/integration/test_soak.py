"""Minutes of faults drawn at random: what is served stays true, and costs no more than at first.

The seed, which is in the test's name, gives the order of the faults and what each of them draws;
what they meet differs from run to run.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass
from pathlib import Path

import psutil
import pytest
import requests
from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

from dev import apache_kafka
from dev.apache_kafka import ApacheKafka
from dev.broker import forwarding
from tests.processes import Program, assert_all_ended, free_port, gunicorn, running
from tests.topics import admin_of
from tests.waiting import eventually

pytestmark = pytest.mark.own_kafka

TOPIC = "soak"
WORKERS = 2
MOST_PARTITIONS = 8
MEGABYTE = 1_000_000
BURST = 5_000
HALF_SENT = 300
HALF_A_HEAD = b"GET /state HTTP/1.1\r\nHost: localhost\r\nX-Half: "

LONGEST_PAUSE_SECONDS = 2.0
REQUEST_SECONDS = 5
LONGEST_FREEZE_SECONDS = REQUEST_SECONDS + 5.0
# the start, the last fault and the end come on top of what is asked for
SECONDS_ON_TOP = 300
# far more than it takes: what is not there by then does not come by itself
CATCH_UP_SECONDS = 30.0
ANSWER_SECONDS = 5.0
# a connection that a worker has taken just before it is killed is lost with it
KILL_SECONDS = 1.0

# Python gives memory back in pieces of a megabyte, and seldom all of them
SPARE_BYTES = 15 * MEGABYTE
# connections to a broker that are being replaced, a client that has yet to be let go
SPARE_FILES = 10
# one for each answer at a time is kept for the next answers
SPARE_THREADS = 5
# three lines and a summary a second of the updates, and as many of the invalid messages
LINES_A_SECOND = 8
# of how it starts, loses its broker and ends
LINES_A_WORKER = 60
LONGEST_LINE = 1_000

FOLLOWING = re.compile(r"\[(\d+)\] \[INFO\] Following as")
KNOWING = re.compile(r"\[(\d+)\] \[INFO\] Initializing API")

VALID, INVALID = b"valid", b"invalid"
NONSENSE = (
    None,
    b"",
    b"not JSON",
    b"\xff\xfe",
    b"[" * 1000,
    b'{"text":"no state"}',
    b'{"state":NaN}',
    b'{"state":1,"text":2}',
)


class Writer:
    """Writes all along, in a thread of its own and when asked.

    What a broker in trouble does not take is in no log, and so no matter.
    """

    def __init__(self, kafka: ApacheKafka, seed: int) -> None:
        self._kafka = kafka
        self._random = random.Random(seed)
        self._numbers = itertools.count(1)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *raised: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(self._random.uniform(0, 0.4)):
            kinds = (self.valid, self.invalid, self.large)
            self.write(*self._random.choices(kinds, (70, 30, 0.5), k=self._random.randrange(20)))

    def valid(self, padding: int = 0) -> tuple[bytes, bytes]:
        state = {"number": next(self._numbers), "padding": "x" * padding}
        return VALID, json.dumps({"state": state}).encode()

    def large(self) -> tuple[bytes, bytes]:
        return self.valid(MEGABYTE)

    def invalid(self) -> tuple[bytes, bytes | None]:
        return INVALID, self._random.choice(NONSENSE)

    def write(
        self, *kinds: Callable[[], tuple[bytes, bytes | None]], everywhere: bool = False
    ) -> bool:
        """Write one of each kind to some partition, or to each; gives whether all were taken."""
        # a new one each time, for one that lives on remembers a topic that was deleted
        producer = Producer(
            {
                "bootstrap.servers": self._kafka.address,
                "message.max.bytes": 2 * MEGABYTE,
                "message.timeout.ms": 5000,
                "log_level": 0,
            }
        )
        sent, taken = 0, []
        with contextlib.suppress(KafkaException):
            topic = producer.list_topics(timeout=2).topics.get(TOPIC)
            partitions = sorted(topic.partitions) if topic else []
            for kind in kinds if partitions else ():
                for partition in partitions if everywhere else [self._random.choice(partitions)]:
                    key, value = kind()
                    producer.produce(
                        TOPIC,
                        value,
                        key,
                        partition,
                        # of whole seconds and out of order, so that the newest is seldom the
                        # last, and seldom the only one
                        timestamp=(int(time.time()) - self._random.randrange(3)) * 1000,
                        on_delivery=lambda error, _: taken.append(error is None),
                    )
                    sent += 1
                    producer.poll(0)
        producer.flush(10)
        return 0 < sent == taken.count(True)


class Client:
    """Asks for the state over and over, on new connections; notes each answer that is wrong."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="client", daemon=True)
        self.killed_at = -KILL_SECONDS
        self.may_be_unknown = False
        self.answers = 0
        self.longest = 0.0
        self.wrong: list[str] = []

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *raised: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(0.02):
            began = time.monotonic()
            may_be_unknown = self.may_be_unknown
            try:
                answer = requests.get(self._url, timeout=ANSWER_SECONDS)
            except requests.RequestException as error:
                lost = isinstance(error, (requests.ConnectionError, requests.Timeout))
                if not lost or began > self.killed_at + KILL_SECONDS:
                    self._note(repr(error))
                continue
            self.answers += 1
            self.longest = max(self.longest, time.monotonic() - began)
            unknown = answer.status_code == 503 and (may_be_unknown or self.may_be_unknown)
            if answer.status_code != 200 and not unknown:
                self._note(f"{answer.status_code}: {answer.text}")

    def _note(self, what: str) -> None:
        self.wrong.append(f"{time.strftime('%H:%M:%S')} {what}")


@dataclass(frozen=True)
class Footprint:
    bytes: int
    files: int
    threads: int

    @classmethod
    def of(cls, process: psutil.Process) -> Footprint:
        return cls(process.memory_info().rss, process.num_fds(), process.num_threads())

    def fits(self, first: Footprint) -> bool:
        spare = SPARE_BYTES, SPARE_FILES, SPARE_THREADS
        grown = (now - then for now, then in zip(astuple(self), astuple(first), strict=True))
        return all(more <= most for more, most in zip(grown, spare, strict=True))

    def __str__(self) -> str:
        return f"{self.bytes / MEGABYTE:.1f} MB, {self.files} files, {self.threads} threads"


class Soak:
    """The service, its broker behind a name that stays, and what the faults need of them.

    Attributes:
        random: the present fault's own, so that what it draws depends on the seed alone.
        first: by process, what it took when it was warm.
    """

    def __init__(self, kafka: ApacheKafka, seconds: float, seed: int) -> None:
        self.kafka = kafka
        self.seconds = seconds
        self.random = random.Random(seed)
        self.writer = Writer(kafka, seed)
        self.first: dict[psutil.Process, Footprint] = {}
        self.longest_catch_up = 0.0
        self._port = free_port()
        self._forward = contextlib.ExitStack()

    @contextlib.contextmanager
    def serving(self, log: Path) -> Iterator[None]:
        port = free_port()
        environ = {
            "KAFKA_TOPIC": TOPIC,
            "KAFKA_BOOTSTRAP_SERVERS": f"localhost:{self._port}",
            "KAFKA_METADATA_MAX_AGE_MS": "1000",
            "KAFKA_REQUEST_TIMEOUT_MS": str(REQUEST_SECONDS * 1000),
            "PORT": str(port),
        }
        command = gunicorn("--workers", str(WORKERS))
        with self._forward, running(command, port, environ, log) as self.program:
            self.forward()
            self.client = Client(f"{self.url}/state")
            self.await_workers()
            yield

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.program.port}"

    def admin(self) -> AdminClient:
        """For its caller to hold until all is answered."""
        return admin_of(self.kafka.address)

    def forward(self) -> None:
        """Have the bootstrap name lead to where the broker is now."""
        self._forward.close()
        self._forward.enter_context(forwarding(self._port, self.kafka.address))

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
        admin = self.admin()
        admin.delete_topics([TOPIC])[TOPIC].result(30)

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

    def catch_up(self) -> None:
        """Return once each worker serves a state that was written after this was called."""
        number = json.loads(self.writer.valid()[1])["state"]["number"]

        def is_new(answer: requests.Response) -> bool:
            state = answer.json()["state"]
            return isinstance(state, dict) and state["number"] > number

        eventually(lambda: self.writer.write(self.writer.valid, everywhere=True))
        began = time.monotonic()
        eventually(lambda: all(map(is_new, self.answers())), within=CATCH_UP_SECONDS)
        self.longest_catch_up = max(self.longest_catch_up, time.monotonic() - began)


def kill_the_broker(soak: Soak) -> None:
    soak.kafka.kill()
    soak.pause()
    soak.kafka.start()


def freeze_the_broker(soak: Soak) -> None:
    """In a long soak for longer than every time-out, now and then."""
    soak.kafka.freeze()
    soak.pause(min(LONGEST_FREEZE_SECONDS, soak.seconds / 10))
    soak.kafka.thaw()


def lose_the_disk(soak: Soak) -> None:
    soak.kafka.kill()
    soak.kafka.wipe()
    soak.kafka.start()
    # nobody but the service creates it
    eventually(soak.partitions, within=CATCH_UP_SECONDS)


def move_the_broker(soak: Soak) -> None:
    soak.kafka.stop()
    soak.kafka.move()
    soak.kafka.start()
    soak.forward()


def delete_the_topic(soak: Soak) -> None:
    soak.delete_topic()
    eventually(soak.partitions, within=CATCH_UP_SECONDS)


def recreate_the_topic_with_more_partitions(soak: Soak) -> None:
    count = soak.more_partitions()
    soak.delete_topic()
    soak.have_partitions(count)


def add_partitions(soak: Soak) -> None:
    soak.have_partitions(soak.more_partitions())


def delete_records(soak: Soak) -> None:
    """Of each partition up to some offset."""
    consumer = Consumer({"bootstrap.servers": soak.kafka.address, "group.id": "none"})
    upto = []
    for partition in soak.partitions():
        low, high = consumer.get_watermark_offsets(TopicPartition(TOPIC, partition), timeout=10)
        upto.append(TopicPartition(TOPIC, partition, soak.random.randint(low, high)))
    consumer.close()
    admin = soak.admin()
    for deleted in admin.delete_records(upto).values():
        deleted.result(30)


def send_a_burst(soak: Soak) -> None:
    soak.writer.write(*[soak.writer.valid] * BURST)


def send_a_burst_of_invalid_ones(soak: Soak) -> None:
    soak.writer.write(*[soak.writer.invalid] * BURST)


def open_half_sent_connections(soak: Soak) -> None:
    with contextlib.ExitStack() as opened:
        for _ in range(HALF_SENT):
            client = socket.create_connection(("127.0.0.1", soak.program.port), 10)
            opened.enter_context(client).sendall(HALF_A_HEAD)
        # some for longer than the service is patient
        soak.pause(8)


def kill_a_worker(soak: Soak) -> None:
    soak.await_workers(without=soak.kill_a_worker())
    soak.warm_up()


def kill_a_worker_while_the_broker_is_away(soak: Soak) -> None:
    soak.client.may_be_unknown = True
    soak.kafka.kill()
    killed = soak.kill_a_worker()
    soak.pause()
    soak.kafka.start()
    soak.await_workers(without=killed)
    soak.client.may_be_unknown = False
    soak.warm_up()


def reload(soak: Soak) -> None:
    old = soak.workers()
    soak.program.process.send_signal(signal.SIGHUP)
    soak.await_workers(without=old)
    soak.warm_up()


REPLACE_WORKERS = (kill_a_worker, kill_a_worker_while_the_broker_is_away, reload)
OTHERS = (
    kill_the_broker,
    freeze_the_broker,
    lose_the_disk,
    move_the_broker,
    delete_the_topic,
    recreate_the_topic_with_more_partitions,
    add_partitions,
    delete_records,
    send_a_burst,
    send_a_burst_of_invalid_ones,
    open_half_sent_connections,
)


def schedule(seconds: float, seed: int) -> Iterator[Callable[[Soak], None]]:
    """Each fault once, in any order, and again until the time is over.

    No worker is replaced in the second half, so that a leak has time to show.
    """
    began = time.monotonic()
    order = random.Random(seed)
    while True:
        for fault in order.sample(REPLACE_WORKERS + OTHERS, len(REPLACE_WORKERS + OTHERS)):
            elapsed = time.monotonic() - began
            if elapsed > seconds:
                return
            if elapsed < seconds / 2 or fault in OTHERS:
                yield fault


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


def assert_log_is_bounded(program: Program, seconds: float) -> None:
    lines = program.told
    workers = set(FOLLOWING.findall(program.output))
    print(f"{len(lines)} lines of {len(workers)} workers in {seconds:.0f} s")
    assert len(lines) < LINES_A_SECOND * WORKERS * seconds + LINES_A_WORKER * len(workers)
    assert max(map(len, lines)) < LONGEST_LINE
    assert "WORKER TIMEOUT" not in program.output


@pytest.mark.drawn_at_random("soak", seconds_on_top=SECONDS_ON_TOP)
def test_is_true_and_no_larger_after_faults_of_all_kinds(seconds, seed, tmp_path):
    began = time.monotonic()
    # so that only the service and the faults create the topic
    overrides = {"auto.create.topics.enable": "false"}
    with apache_kafka.running(overrides) as kafka:
        soak = Soak(kafka, seconds, seed)
        with soak.serving(tmp_path / "output"):
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
            assert_log_is_bounded(soak.program, time.monotonic() - began)
    assert_all_ended(processes)
    assert kafka.process.poll() is not None
