"""The topic's metadata: which partitions it has, and whether it is still the same topic."""

from __future__ import annotations

import base64
import time
import uuid
from collections.abc import Callable

from kafka import KafkaConsumer
from kafka.errors import (
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)

from app.topic_log.errors import TopicLogError
from app.topic_log.installed import adapter
from app.topic_log.responsive import RESPONSIVE_SECONDS

STEP_SECONDS = 0.1
TOLD_BY_THE_CLUSTER = (UnknownTopicOrPartitionError, TopicAuthorizationFailedError)
LOST_SECONDS = 3.0


class TopicReplaced(TopicLogError):
    """The topic is gone, or it is another of the same name."""


class BrokersLost(TopicLogError):
    """No broker that the client knows answers any more; there may be others by now."""


class TopicMetadata:
    """One topic in a consumer's metadata, which the client renews by itself.

    Attributes:
        topic_id: names the topic for as long as it exists, and not another of the same name
            (KIP-516), as Kafka's own tools write it; None until the topic is found, and with
            brokers older than 2.8.
    """

    def __init__(
        self, consumer: KafkaConsumer, topic: str, before_wait: Callable[[], None]
    ) -> None:
        self._client = consumer._client
        self._cluster = self._client.cluster
        self._topic = topic
        self._before_wait = before_wait
        self._answered_at = 0.0
        self._looked_at = time.monotonic()
        self._unanswered_seconds = 0.0
        self._partitions: frozenset[int] = frozenset()
        self.topic_id: str | None = None

    def partitions(self) -> frozenset[int]:
        """The topic's partitions; none if it does not exist.

        Raises:
            TopicReplaced: it did exist before.
            BrokersLost: nothing has come from any broker for some time, and metadata is wanted.
            TopicAuthorizationFailedError: the ACLs do not let this client see the topic.
        """
        if self._partitions:
            self._require_answers()
        else:
            self._ask()
        if self._topic in self._cluster.unauthorized_topics:
            raise TopicAuthorizationFailedError
        partitions = frozenset(self._cluster.partitions_for_topic(self._topic) or ())
        topic_id = _text(self._cluster.topic_id(self._topic)) if partitions else None
        if self._partitions and not (partitions and topic_id == self.topic_id):
            raise TopicReplaced(f"the topic {self._topic} was deleted")
        self._partitions, self.topic_id = partitions, topic_id
        return partitions

    def _ask(self) -> None:
        adapter.set_topics(self._client, [self._topic])
        answer = self._cluster.request_update()
        self._unanswered_seconds = 0.0
        while not answer.is_done:
            self._before_wait()
            self._require_answers()
            self._client.poll(timeout_ms=STEP_SECONDS * 1000)
        if answer.failed() and not isinstance(answer.exception, TOLD_BY_THE_CLUSTER):
            raise answer.exception

    def _require_answers(self) -> None:
        """Notice that no broker answers any more, for the client itself would ask for ever."""
        now = time.monotonic()
        # a message may take long to load, and no answer is taken meanwhile
        self._unanswered_seconds += min(now - self._looked_at, RESPONSIVE_SECONDS)
        self._looked_at = now
        answered_at = self._cluster._last_successful_refresh_ms
        if answered_at != self._answered_at or not self._cluster._need_update:
            self._answered_at, self._unanswered_seconds = answered_at, 0.0
        elif self._unanswered_seconds > LOST_SECONDS:
            if not self._client.ask_another():
                raise BrokersLost("no broker answers any more")
            self._unanswered_seconds = 0.0


def _text(topic_id: uuid.UUID | None) -> str | None:
    if topic_id is None:
        return None
    return base64.urlsafe_b64encode(topic_id.bytes).decode().rstrip("=")
