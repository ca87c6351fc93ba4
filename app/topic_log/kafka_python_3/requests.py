"""How kafka-python 3 asks a partition's leader, and reads the answer: see `adapter.Requests`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from kafka.cluster import ClusterMetadata
from kafka.errors import UnknownBrokerIdError
from kafka.protocol.consumer import FetchRequest, ListOffsetsRequest

from app.topic_log.adapter import FetchAnswer

# the newest that names topics, and not their ids
FETCH_VERSION = 11

_Topic = FetchRequest.FetchTopic
_Partition = _Topic.FetchPartition
_EndsTopic = ListOffsetsRequest.ListOffsetsTopic
_EndsPartition = _EndsTopic.ListOffsetsPartition


def fetch_version(client: Any) -> int:
    version: int = client.api_version(FetchRequest, max_version=FETCH_VERSION)
    return version


def fetch_request(
    version: int,
    topic: str,
    partitions: Iterable[tuple[int, int, int, int]],
    wait_ms: int,
    max_bytes: int,
    isolation_level: int,
    rack: str,
) -> Any:
    asked = [
        _Partition(
            version=version,
            partition=number,
            current_leader_epoch=epoch,
            fetch_offset=offset,
            log_start_offset=-1,
            partition_max_bytes=size,
        )
        for number, epoch, offset, size in partitions
    ]
    return FetchRequest[version](
        replica_id=-1,
        max_wait_ms=wait_ms,
        min_bytes=1,
        max_bytes=max_bytes,
        isolation_level=isolation_level,
        session_id=0,
        session_epoch=-1,
        topics=[_Topic(topic=topic, partitions=asked)],
        forgotten_topics_data=[],
        rack_id=rack,
    )


def fetch_answers(response: Any) -> Iterator[FetchAnswer]:
    for topic in response.responses:
        for answer in topic.partitions:
            yield (
                answer.partition_index,
                answer.error_code,
                answer.high_watermark,
                answer.last_stable_offset,
                answer.log_start_offset if response.API_VERSION >= 5 else None,
                [(one.producer_id, one.first_offset) for one in answer.aborted_transactions or ()],
                answer.preferred_read_replica if response.API_VERSION >= 11 else -1,
                answer.records,
            )


def ends_request(
    topic: str, partitions: Iterable[int], timestamp: int, isolation_level: int
) -> Any:
    asked = [
        _EndsPartition(version=2, partition_index=number, timestamp=timestamp)
        for number in partitions
    ]
    return ListOffsetsRequest[2](
        replica_id=-1,
        isolation_level=isolation_level,
        topics=[_EndsTopic(name=topic, partitions=asked)],
    )


def ends_answers(response: Any) -> Iterator[tuple[int, int, int]]:
    for topic in response.topics:
        for answer in topic.partitions:
            yield answer.partition_index, answer.error_code, answer.offset


def leader(cluster: ClusterMetadata, topic: str, partition: int) -> tuple[int, int, int]:
    metadata = cluster._partitions[topic][partition]
    return metadata.leader_id, metadata.leader_epoch, metadata.error_code


def is_connected(client: Any, node: int) -> bool:
    try:
        ready: bool = client.ready(node)
    except UnknownBrokerIdError:  # metadata can name a leader and not its address
        return False
    return ready
