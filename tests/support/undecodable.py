"""Messages that are good for Kafka and too much for a Python client: a header's key is no UTF-8.

Producers in languages whose strings are bytes can send them; no Python one does, so the request
is put together here.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Mapping
from typing import Any

from crc32c import crc32c
from kafka.record.memory_records import MemoryRecordsBuilder

from tests.support.waiting import eventually

PRODUCE, VERSION, ALL_IN_SYNC, TIMEOUT_MS = 0, 3, -1, 10_000
# UNKNOWN_TOPIC_OR_PARTITION, LEADER_NOT_AVAILABLE, NOT_LEADER_OR_FOLLOWER
LEADER_TO_COME = {3, 5, 6}
# where a record batch has its checksum, and where what it covers begins
# https://kafka.apache.org/documentation/#recordbatch
CRC, COVERED = 17, 21


def send_undecodable(
    topic: Any, count: int, partition: int, good: Mapping[int, bytes] | None = None
) -> None:
    """Send one batch of `count` messages that no Python client can decode, but for the `good`
    ones: values by their index in the batch."""
    host, _, port = topic.servers.partition(":")
    request = _string(b"test") + struct.pack(">hhi", -1, ALL_IN_SYNC, TIMEOUT_MS)
    request += struct.pack(">i", 1) + _string(topic.name.encode())
    batch = _batch(count, good or {})
    request += struct.pack(">iii", 1, partition, len(batch)) + batch
    # as every producer does, for a new leader may not know yet that it is one
    eventually(lambda: _produced(host, int(port), request, topic.name))


def _produced(host: str, port: int, request: bytes, topic: str) -> bool:
    with socket.create_connection((host, port), 10) as connection:
        header = struct.pack(">hhi", PRODUCE, VERSION, 1)
        connection.sendall(struct.pack(">i", len(header + request)) + header + request)
        answer = connection.makefile("rb")
        (size,) = struct.unpack(">i", answer.read(4))
        # correlation id, one topic, its name, one partition, its number, then what we ask for
        body = answer.read(size)
        at = 4 + 4 + 2 + len(topic) + 4 + 4
        (error,) = struct.unpack_from(">h", body, at)
        assert error in {0, *LEADER_TO_COME}
        return int(error) == 0


def _batch(count: int, good: Mapping[int, bytes]) -> bytes:
    builder = MemoryRecordsBuilder(magic=2, compression_type=0, batch_size=1_000_000)
    for index in range(count):
        builder.append(
            timestamp=int(time.time() * 1000),
            key=None,
            value=good.get(index, b'{"state":"undecodable"}'),
            headers=[] if index in good else [("header's key", b"")],
        )
    builder.close()
    batch = bytearray(bytes(builder.buffer()).replace(b"header's key", b"header\xffs key"))
    struct.pack_into(">I", batch, CRC, crc32c(bytes(batch[COVERED:])))
    return bytes(batch)


def _string(text: bytes) -> bytes:
    return struct.pack(">h", len(text)) + text
