"""Checks that the client has the private names that this package leans on."""

from __future__ import annotations

from kafka import KafkaConsumer, KafkaProducer
from kafka.cluster import ClusterMetadata
from kafka.coordinator.consumer import ConsumerCoordinator
from kafka.record.default_records import DefaultRecordBatch
from kafka.record.legacy_records import LegacyRecordBatch

COMMON = {
    ClusterMetadata: ("_last_successful_refresh_ms", "_need_update", "_partitions"),
    ConsumerCoordinator: ("_invoke_completed_offset_commit_callbacks",),
    DefaultRecordBatch: (
        "_buffer",
        "_header_data",
        "_maybe_uncompress",
        "_num_records",
        "_pos",
        "_read_msg",
    ),
    KafkaConsumer: ("_client", "_coordinator"),
    LegacyRecordBatch: ("_buffer", "_offset"),
    KafkaProducer: ("_metadata",),
}


class NamesMissing(ImportError):
    """The client is of another version than this package was made for."""


def require_common_names(client: str, made_for: str) -> None:
    """Check those that all of this package leans on.

    Raises:
        NamesMissing: one is not there.
    """
    for owner, names in COMMON.items():
        require_names(client, made_for, owner, *names)


def require_names(client: str, made_for: str, owner: type, *names: str) -> None:
    """Check the names of one class.

    Args:
        names: of attributes of the class, or of those that `__init__` gives its objects.

    Raises:
        NamesMissing: one is not there.
    """
    of_objects = owner.__init__.__code__.co_names  # type: ignore[misc]
    for name in names:
        if not hasattr(owner, name) and name not in of_objects:
            raise NamesMissing(
                f"{owner.__qualname__} has no {name}, it had one in {client} {made_for}"
            )
