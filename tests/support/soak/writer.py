"""Writes valid and invalid messages all along."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import threading
import time
from collections.abc import Callable

from confluent_kafka import (
    KafkaException,
    Producer,
)

from dev.apache_kafka import ApacheKafka

MEGABYTE = 1_000_000
TOPIC = "soak"
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
