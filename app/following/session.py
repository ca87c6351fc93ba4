"""What is done over one connection: wait for the topic, locate, follow, publish."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timezone
from typing import NoReturn

from app.following.conflation import Conflation
from app.following.event_log import EventLog
from app.following.follower import Follower
from app.following.publisher import Publisher
from app.following.reporter import Reporter
from app.following.state_cache import StateCache
from app.following.validation import Validation
from app.message import Stopping
from app.message_errors import InvalidMessage
from app.settings import Settings
from app.topic_log import PartitionError, TopicLog, TopicLogError

log = logging.getLogger(__name__)

TOPIC_SECONDS = 0.2


class Session:
    """Follows the topic over one connection after the other. For the consumer thread only."""

    def __init__(
        self,
        settings: Settings,
        validation: Validation,
        publisher: Publisher,
        reporter: Reporter,
        event_log: EventLog,
        checkpoint: Callable[[], None],
        wait: Callable[[float], object],
        while_unanswered: Callable[[], None],
        cache: StateCache | None,
    ) -> None:
        """
        Args:
            checkpoint: called before each wait, some seconds long at most; raises Stopping when
                following is to end.
            wait: waits so many seconds, or until following is to end.
            while_unanswered: called now and then until a broker has answered; may raise Stopping.
            cache: told until when the state is current; None where nothing is kept.
        """
        self._settings = settings
        self._validation = validation
        self._publisher = publisher
        self._reporter = reporter
        self._event_log = event_log
        self._checkpoint = checkpoint
        self._wait = wait
        self._while_unanswered = while_unanswered
        self._cache = cache
        self._partition_errors: Counter[str] = Counter()

    def run(self) -> NoReturn:
        """Open a connection, and follow the topic until that ends.

        Raises:
            Stopping: following is to end.
            Exception: the connection is lost, or was not made; another one may go on.
        """
        topic_log = TopicLog(
            self._settings,
            self._reporter.status.group_id,
            before_wait=self._checkpoint,
            on_group_refused=self._note_group_refused,
            while_unanswered=self._while_unanswered,
        )
        try:
            self._wait_for_topic(topic_log)
            self._follow(topic_log)
        except Stopping:
            self._delete_group(topic_log)
            raise
        finally:
            topic_log.close()

    def _wait_for_topic(self, topic_log: TopicLog) -> None:
        if topic_log.partitions():
            return
        if not self._settings.topic_auto_create:
            self._reporter.failed(
                TopicLogError(
                    f"the topic {self._settings.topic} does not exist, and "
                    "KAFKA_TOPIC_AUTO_CREATE is false"
                )
            )
        while not topic_log.partitions():
            if self._settings.topic_auto_create and topic_log.create_topic():
                self._event_log.created_topic()
                self._reporter.update(created_topic_at=datetime.now(timezone.utc))
            self._checkpoint()
            self._wait(TOPIC_SECONDS)

    def _follow(self, topic_log: TopicLog) -> NoReturn:
        if topic_log.topic_id != self._validation.topic_id:
            self._publisher.begin_another_topic()
        self._validation.topic_id = topic_log.topic_id
        follower = Follower(
            topic_log,
            self._validation.validate,
            self._refuse_undecodable,
            self._note_partition_error,
            self._event_log.partition_recovery,
        )
        before = self._reporter.status
        conflation = Conflation(self._settings.conflate_ms / 1000)
        while True:
            passed = follower.passed
            follower.step(self._publisher.latest)
            if follower.has_read:
                self._reporter.connected(topic_log.topic_id)
            self._publisher.publish(follower)
            topic_log.commit(follower.positions)
            self._reporter.update(
                partitions=follower.progress,
                current_as_of=self._current_as_of(follower),
                cache_error=self._cache.error if self._cache else None,
                skipped_messages=before.skipped_messages + follower.skipped,
                fetches=before.fetches + follower.fetches,
                partition_errors=dict(self._partition_errors),
            )
            if self._cache:
                self._cache.confirm(self._reporter.status.current_as_of)
            self._event_log.flush()
            if follower.passed > passed:
                self._wait(conflation.pause_after(follower.passed - passed))

    def _current_as_of(self, follower: Follower) -> float:
        status = self._reporter.status
        confirmed_at = None if status.cached else follower.confirmed_at
        return confirmed_at or status.current_as_of

    def _delete_group(self, topic_log: TopicLog) -> None:
        try:
            topic_log.delete_group()
        except Exception as error:  # noqa: BLE001  # a client cut off raises assertions too
            group_id = self._reporter.status.group_id
            log.warning("The group %s is left behind: %r", group_id, error)

    def _note_partition_error(self, error: PartitionError) -> None:
        self._partition_errors[error.name] += 1
        self._event_log.partition_error(error.partition, str(error))

    def _refuse_undecodable(self, partition: int, offset: int, detail: str) -> None:
        self._validation.refuse(partition, offset, InvalidMessage("unreadable", detail))

    def _note_group_refused(self) -> None:
        if not self._reporter.status.group_is_refused:
            self._reporter.update(group_is_refused=True)
            self._event_log.group_refused(
                self._settings.security.who, self._reporter.status.group_id
            )
