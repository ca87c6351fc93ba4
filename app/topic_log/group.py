"""The consumer group that the positions are committed under, for Kafka's own tools to see."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import GroupAuthorizationFailedError, IncompatibleBrokerVersion
from kafka.structs import OffsetAndMetadata

from app.topic_log.admin import admin_client

if TYPE_CHECKING:
    from app.settings import Settings

log = logging.getLogger(__name__)

FIRST_COMMIT_SECONDS = 0.25
COMMIT_SECONDS = 5.0
COMMIT_UNCHANGED_SECONDS = 600.0  # far below offsets.retention.minutes, seven days by default


class Group:
    """Commits now and then, and never waits for it. For one thread only.

    Args:
        open_consumer: opens a consumer of the group, which is used for nothing else.
        on_refused: called when the ACLs turn out to forbid the group; nothing is committed then.
    """

    def __init__(
        self,
        group_id: str,
        open_consumer: Callable[..., KafkaConsumer],
        on_refused: Callable[[], None],
    ) -> None:
        self.group_id = group_id
        self._open_consumer = open_consumer
        self._on_refused = on_refused
        self._refused = False
        self._consumer: KafkaConsumer | None = None
        self._committed: Mapping[TopicPartition, int] = {}
        self._next_attempt = 0.0
        self._pause = FIRST_COMMIT_SECONDS

    def commit(self, positions: Mapping[TopicPartition, int]) -> None:
        now = time.monotonic()
        unchanged = positions == self._committed
        if now < self._next_attempt + (COMMIT_UNCHANGED_SECONDS if unchanged else 0):
            return
        if self._refused:
            return
        if self._consumer is None:
            self._consumer = self._open_consumer(group_id=self.group_id)
        self._next_attempt = now + self._pause
        # short at first: kafka-python-ng takes its network steps during calls of the next line
        # only, so that the first commit needs several
        self._pause = min(2 * self._pause, COMMIT_SECONDS)
        self._consumer.commit_async(
            # (offset, metadata) and, in kafka-python 3, a leader epoch that has a default
            {key: OffsetAndMetadata(offset, "") for key, offset in positions.items()},
            callback=self._note_outcome,
        )

    def _note_outcome(self, offsets: Mapping[TopicPartition, Any], outcome: object) -> None:
        if isinstance(outcome, GroupAuthorizationFailedError):
            self._refused = True
            self._on_refused()
        elif isinstance(outcome, Exception):
            log.debug("Committing under %s failed: %s", self.group_id, outcome)
        else:
            self._committed = {key: committed.offset for key, committed in offsets.items()}

    def delete(self, settings: Settings) -> None:
        """Leave no group behind."""
        self.close()
        if self._refused:
            return
        with admin_client(settings) as admin, contextlib.suppress(IncompatibleBrokerVersion):
            # one operation under two names: kafka-python's first, kafka-python-ng's second
            delete = getattr(admin, "delete_groups", None) or admin.delete_consumer_groups
            # a broker that does not know it, the embedded one for example, keeps no groups for long
            delete([self.group_id])

    def close(self) -> None:
        if self._consumer:
            close_quietly(self._consumer)
            self._consumer = None


def close_quietly(consumer: KafkaConsumer) -> None:
    """Close in silence: what the client says of the requests it cancels then is no news."""
    client_log = logging.getLogger("kafka")
    level = client_log.level
    client_log.setLevel(logging.CRITICAL)
    try:
        consumer.close(autocommit=False)
    finally:
        client_log.setLevel(level)
