"""How kafka-python-ng asks a partition's leader, and reads the answer: see `adapter.Requests`.

Its own consumer asks in version 4 of the request, which brokers before 4.0 refuse where the topic
or the broker has `compression.type=zstd` (KIP-110: version 10 is the first that may have it), and
which tells no leader epoch (KIP-320, version 9).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from kafka.cluster import ClusterMetadata
from kafka.protocol.fetch import FetchRequest
from kafka.protocol.offset import OffsetRequest

from app.topic_log.adapter import FetchAnswer

FETCH = 1
# of the versions in between none is the newest of any release
FETCH_VERSIONS = 11, 4


def fetch_version(client: Any) -> int:
    _, newest = (client.get_api_versions() or {}).get(FETCH, (0, 0))
    return next((version for version in FETCH_VERSIONS if version <= newest), FETCH_VERSIONS[-1])


def fetch_request(
    version: int,
    topic: str,
    partitions: Iterable[tuple[int, int, int, int]],
    wait_ms: int,
    max_bytes: int,
    isolation_level: int,
    rack: str,
) -> Any:
    head = -1, wait_ms, 1, max_bytes, isolation_level
    if version < 11:
        return FetchRequest[version](
            *head, [(topic, [(number, offset, size) for number, _, offset, size in partitions])]
        )
    of_no_session = 0, -1
    asked = [(number, epoch, offset, -1, size) for number, epoch, offset, size in partitions]
    return FetchRequest[version](*head, *of_no_session, [(topic, asked)], [], rack)


def fetch_answers(response: Any) -> Iterator[FetchAnswer]:
    for _, partitions in response.topics:
        for number, error, high_watermark, stable, *log_start, aborted, preferred, records in (
            fields if response.API_VERSION >= 11 else (*fields[:-1], -1, fields[-1])
            for fields in partitions
        ):
            yield (
                number,
                error,
                high_watermark,
                stable,
                log_start[0] if log_start else None,
                aborted or (),
                preferred,
                records,
            )


def ends_request(
    topic: str, partitions: Iterable[int], timestamp: int, isolation_level: int
) -> Any:
    # version 4 has a mistake in this client: an epoch of 8 bytes
    asked = [(number, timestamp) for number in partitions]
    return OffsetRequest[2](-1, isolation_level, [(topic, asked)])


def ends_answers(response: Any) -> Iterator[tuple[int, int, int]]:
    for _, partitions in response.topics:
        for number, error, _, offset in partitions:
            yield number, error, offset


def leader(cluster: ClusterMetadata, topic: str, partition: int) -> tuple[int, int, int]:
    metadata = cluster._partitions[topic][partition]
    epoch = cluster.leader_epochs.get((topic, partition), -1)
    return metadata.leader, epoch, metadata.error


def is_connected(client: Any, node: int) -> bool:
    # it would let a question for metadata that is not answered block all others
    ready: bool = client.ready(node, metadata_priority=False)
    return ready
