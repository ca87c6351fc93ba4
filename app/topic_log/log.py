"""One topic's log, read by offset."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from kafka import KafkaConsumer, TopicPartition

from app.topic_log.admin import create_topic
from app.topic_log.answers import Answer, Ask
from app.topic_log.connectivity import silent_brokers
from app.topic_log.consumers import close_quietly, open_consumer
from app.topic_log.errors import TopicLogError, Unreachable
from app.topic_log.exchange import Exchange
from app.topic_log.group import Group
from app.topic_log.installed import adapter
from app.topic_log.metadata import BrokersLost, TopicMetadata
from app.topic_log.sign_in import keep_fresh, refusals_of

if TYPE_CHECKING:
    from app.settings import Settings


LOST: tuple[type[Exception], ...] = (BrokersLost, *adapter.NO_START)


class TopicLog:
    """One topic, all its partitions. For one thread only.

    It reads with a consumer that has no group, for a client may wait without end for the
    coordinator of one that has; `commit` uses a second consumer.

    Raises (every method):
        KafkaError: the log cannot be read on from here; a new TopicLog may be able to.
    """

    def __init__(
        self,
        settings: Settings,
        group_id: str | None,
        before_wait: Callable[[], None],
        on_group_refused: Callable[[], None],
        while_unanswered: Callable[[], None],
    ) -> None:
        """
        Args:
            group_id: what positions are committed under; None where they are not committed.
            before_wait: called before each wait, some seconds long at most; may raise to end it.
            on_group_refused: called by `commit` when the ACLs turned out to forbid the group;
                nothing is committed then.
            while_unanswered: called now and then until a broker has answered; may raise to end it.
        """
        self._settings = settings
        self._topic = settings.topic
        self._refusals = refusals_of(settings.security)
        self._refusals_before = self._refusals.count
        self._before_wait = before_wait
        self._group = (
            Group(group_id, settings.security, self._open_committer, on_group_refused)
            if group_id
            else None
        )
        with contextlib.ExitStack() as on_failure:
            self._consumer = self._open_reader(while_unanswered)
            on_failure.callback(close_quietly, self._consumer)
            self._exchange = Exchange(
                self._consumer,
                self._topic,
                settings.isolation_level != "READ_UNCOMMITTED",
                settings.client_rack or "",
                settings.metadata_max_age_ms / 1000,
            )
            self._metadata = TopicMetadata(self._consumer, self._topic, before_wait)
            on_failure.pop_all()

    def _open_reader(self, while_unanswered: Callable[[], None]) -> KafkaConsumer:
        options = adapter.reader_options(self._settings.request_timeout_ms)
        return self._open_consumer(**options, while_unanswered=while_unanswered)

    def _open_committer(self, group_id: str) -> KafkaConsumer:
        options = adapter.committer_options(self._settings.request_timeout_ms)
        return self._open_consumer(**options, group_id=group_id)

    def _open_consumer(self, **options: Any) -> KafkaConsumer:
        consumer = open_consumer(self._settings, **options)
        adapter.create_no_topics(consumer)
        return consumer

    def create_topic(self) -> bool:
        """Create the topic, with one partition and the broker's default replication; gives whether
        it was not there.

        Raises:
            NotAllowed: by the ACLs.
        """
        return create_topic(self._settings)

    @property
    def topic_id(self) -> str | None:
        return self._metadata.topic_id

    def partitions(self) -> frozenset[int]:
        """The topic's partitions as far as the client knows by now; none if it does not exist."""
        try:
            return self._metadata.partitions()
        except LOST as error:
            silent = silent_brokers(self._settings, self._consumer._client.cluster)
            raise Unreachable(silent or str(error)) from error

    def new_leaders(self) -> set[int]:
        """The partitions that have another leader than when this was last asked, or a first one:
        what the one before had, it may lack."""
        return self._exchange.leaders.refresh()

    def tells_epochs(self, partition: int) -> bool:
        """Whether each leader of the partition is told apart from the one before, also where it is
        the same broker again."""
        leader = self._exchange.leaders.of(partition)
        return leader is not None and leader.epoch >= 0

    def ask(self, asks: Mapping[int, Ask], timeout: float) -> list[Answer]:
        """Ask partitions for their ends or for records, and give the answers as soon as there are
        some, of whichever partitions; none after `timeout` seconds.

        A partition that has yet to answer is not asked again, until `forget`.
        """
        self._before_wait()
        keep_fresh(self._settings.security)
        if self._refusals.count != self._refusals_before:
            raise TopicLogError(f"a broker has refused {self._settings.security.who}")
        return self._exchange.ask(asks, timeout)

    def forget(self, partition: int) -> None:
        """Take no answer any more to what this partition was asked."""
        self._exchange.forget(partition)

    def want_metadata(self) -> None:
        """Find out who leads which partition by now."""
        self._exchange.want_metadata()

    @property
    def fetches(self) -> int:
        """How many requests for records were sent."""
        return self._exchange.fetches

    def commit(self, positions: Mapping[int, int]) -> None:
        """Let Kafka's own tools see how far this instance has read, where there is a group. Does not
        wait."""
        if self._group:
            self._group.commit({self._key(p): offset for p, offset in positions.items()})

    def delete_group(self) -> None:
        """Leave no group behind."""
        if self._group:
            self._group.delete(self._settings)

    def close(self) -> None:
        with contextlib.ExitStack() as closing:
            closing.callback(close_quietly, self._consumer)
            if self._group:
                closing.callback(self._group.close)

    def _key(self, partition: int) -> TopicPartition:
        return TopicPartition(self._topic, partition)
