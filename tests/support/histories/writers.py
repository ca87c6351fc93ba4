"""Producers, each with its own way to write."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

from confluent_kafka import (
    Producer,
)

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
LINGER_MS = (0, 20)
WAIT_SECONDS = 30


class Writer(NamedTuple):
    how: str
    producer: Producer


class Writers:
    """Producers, each with its own way to write; schedules share them, for a start takes long."""

    def __init__(self, servers: str) -> None:
        self._servers = servers
        self._known: dict[str, Writer] = {}
        for codec, linger_ms, idempotent in itertools.product(CODECS, LINGER_MS, (False, True)):
            self.plain(codec, linger_ms, idempotent)

    def __iter__(self) -> Iterator[Writer]:
        return iter(self._known.values())

    def plain(self, codec: str, linger_ms: int, idempotent: bool) -> Writer:
        how = f"{codec}, {linger_ms} ms{', idempotent' * idempotent}"
        return self._one(
            how,
            **{"compression.type": codec, "linger.ms": linger_ms, "enable.idempotence": idempotent},
        )

    def transactional(self, kind: str, codec: str) -> Writer:
        how = f"{kind} transaction, {codec}"
        config = {"compression.type": codec, "linger.ms": 0, "transactional.id": how}
        is_new = how not in self._known
        writer = self._one(how, **config)
        if is_new:
            writer.producer.init_transactions(WAIT_SECONDS)
        return writer

    def _one(self, how: str, **config: Any) -> Writer:
        if how not in self._known:
            common = {"bootstrap.servers": self._servers, "log_level": 0}
            self._known[how] = Writer(how, Producer({**common, **config}))
        return self._known[how]
