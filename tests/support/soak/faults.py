"""The faults of a soak, and their order."""

from __future__ import annotations

import contextlib
import random
import signal
import socket
import time
from collections.abc import Callable, Iterator

from confluent_kafka import (
    Consumer,
    TopicPartition,
)

from tests.support.secure_listeners import SESSION_SECONDS
from tests.support.soak.service import (
    BURST,
    CATCH_UP_SECONDS,
    KEPT_SECONDS,
    REQUEST_SECONDS,
    Soak,
)
from tests.support.soak.writer import TOPIC
from tests.support.waiting import eventually

HALF_SENT = 300
HALF_A_HEAD = b"GET /state HTTP/1.1\r\nHost: localhost\r\nX-Half: "
LONGEST_FREEZE_SECONDS = REQUEST_SECONDS + 5.0
LONGEST_LAG_SECONDS = SESSION_SECONDS + 1.0
# with the lag less than the half a minute after which who is refused tries again by itself
ROTATED_SECONDS = 20.0


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
    soak.credentials.tell_the_broker()
    soak.credentials.write_the_file()
    # nobody but the service creates it
    eventually(soak.partitions, within=CATCH_UP_SECONDS)


def move_the_broker(soak: Soak) -> None:
    soak.kafka.stop()
    soak.kafka.move()
    soak.kafka.start()
    soak.forward()


def rotate_the_credentials(soak: Soak) -> None:
    """On the broker and in the file, in either order; in a long soak for longer than a session one
    of them is ahead, now and then.

    Where that is the file, it is written once more at the end: who was refused waits for that.
    """
    credentials = soak.credentials
    credentials.choose_password(soak.random)
    soak.random.choice([credentials.tell_the_broker, credentials.write_the_file])()
    soak.pause(min(LONGEST_LAG_SECONDS, soak.seconds / 10))
    credentials.tell_the_broker()
    credentials.write_the_file()
    soak.catch_up(within=ROTATED_SECONDS)


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
    with lost_broker(soak):
        soak.await_workers(without=soak.kill_a_worker())
    soak.warm_up()


def reload_while_the_broker_is_away(soak: Soak) -> None:
    with lost_broker(soak):
        old = soak.workers()
        soak.program.process.send_signal(signal.SIGHUP)
        soak.await_workers(without=old)
    soak.warm_up()


def restart_while_the_broker_is_away(soak: Soak) -> None:
    with lost_broker(soak):
        soak.crash()
        soak.start()
        soak.client.is_down = False
    soak.warm_up()


@contextlib.contextmanager
def lost_broker(soak: Soak) -> Iterator[None]:
    """The broker is killed and comes back; all that is started between serves what others did."""
    soak.kafka.kill()
    before = soak.versions()
    eventually(lambda: soak.kept_version() in before, within=KEPT_SECONDS)
    yield
    assert soak.versions() <= before
    soak.pause()
    soak.kafka.start()


def reload(soak: Soak) -> None:
    old = soak.workers()
    soak.program.process.send_signal(signal.SIGHUP)
    soak.await_workers(without=old)
    soak.warm_up()


REPLACE_WORKERS = (
    kill_a_worker,
    kill_a_worker_while_the_broker_is_away,
    reload,
    reload_while_the_broker_is_away,
    restart_while_the_broker_is_away,
)
OTHERS = (
    kill_the_broker,
    freeze_the_broker,
    lose_the_disk,
    move_the_broker,
    rotate_the_credentials,
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
