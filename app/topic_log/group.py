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

from app.pauses import pause_seconds
from app.topic_log.admin import admin_client
from app.topic_log.installed import IS_KAFKA_PYTHON_3

if TYPE_CHECKING:
    from app.settings import Settings

log = logging.getLogger(__name__)

COMMIT_SECONDS = 5.0
COMMIT_UNCHANGED_SECONDS = 600.0  # far below offsets.retention.minutes, seven days by default
LONGEST_RETRY_SECONDS = 1.0
# after so many failures in a row it is no passing one
FAILURES_TOLD = 5
# what a call takes at most while a commit is not acknowledged: enough for a connection's steps
STEPS_SECONDS = 0.02
STEP_MS = 5


class Group:
    """Commits now and then, and never waits for it. For one thread only.

    A broker may have closed the connection since the last commit, which shows only when the next
    one is sent. So what is not acknowledged is sent again soon, and the steps that a new
    connection takes are taken at each call until it is, also between a failure and the next try,
    for the client begins to connect in one try and is ready in the next.

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
        self._is_outstanding = False
        self._failures = 0
        self._told: set[str] = set()

    def commit(self, positions: Mapping[TopicPartition, int]) -> None:
        """To be called again and again, also while nothing has changed."""
        if self._refused:
            return
        if self._is_outstanding:
            self._take_steps()
        now = time.monotonic()
        unchanged = positions == self._committed
        if now < self._next_attempt + (COMMIT_UNCHANGED_SECONDS if unchanged else 0):
            return
        if self._consumer is None:
            self._consumer = self._open_consumer(group_id=self.group_id)
        self._next_attempt = now + COMMIT_SECONDS
        self._is_outstanding = True
        self._consumer.commit_async(
            # (offset, metadata) and, in kafka-python 3, a leader epoch that has a default
            {key: OffsetAndMetadata(offset, "") for key, offset in positions.items()},
            callback=self._note_outcome,
        )
        self._take_steps()

    def _take_steps(self) -> None:
        assert self._consumer
        deadline = time.monotonic() + STEPS_SECONDS
        while self._is_outstanding and time.monotonic() < deadline:
            if not IS_KAFKA_PYTHON_3:  # which has a thread for it
                self._consumer._client.poll(timeout_ms=STEP_MS)
            self._consumer._coordinator._invoke_completed_offset_commit_callbacks()
            if IS_KAFKA_PYTHON_3:
                return

    def _note_outcome(self, offsets: Mapping[TopicPartition, Any], outcome: object) -> None:
        if isinstance(outcome, GroupAuthorizationFailedError):
            self._refused = True
            self._on_refused()
        elif isinstance(outcome, Exception):
            self._note_failure(outcome)
        else:
            self._is_outstanding = False
            self._failures = 0
            self._committed = {key: committed.offset for key, committed in offsets.items()}

    def _note_failure(self, error: Exception) -> None:
        self._failures += 1
        pause = pause_seconds(self._failures, LONGEST_RETRY_SECONDS)
        self._next_attempt = time.monotonic() + pause
        name = type(error).__name__
        if self._failures >= FAILURES_TOLD and name not in self._told:
            self._told.add(name)
            log.warning(
                "The position cannot be committed under the group %s, and following goes on: %s",
                self.group_id,
                error or name,
            )

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
