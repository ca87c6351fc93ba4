"""The consumer group that the positions are committed under, for Kafka's own tools to see."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import GroupAuthorizationFailedError, IncompatibleBrokerVersion
from kafka.structs import OffsetAndMetadata

from app.backoff import backoff_seconds
from app.topic_log.admin import admin_client
from app.topic_log.consumers import close_quietly
from app.topic_log.errors import Refused, TopicLogError
from app.topic_log.installed import adapter
from app.topic_log.sign_in import refusals_of, wait_after_refusal

if TYPE_CHECKING:
    from app.settings import Settings
    from app.settings.security import SecuritySettings

log = logging.getLogger(__name__)

COMMIT_SECONDS = 5.0
COMMIT_UNCHANGED_SECONDS = 600.0  # far below offsets.retention.minutes, seven days by default
LONGEST_RETRY_SECONDS = 1.0
# a broker that is new, or busy, may have no coordinator for some seconds
TOLD_AFTER_SECONDS = 10.0
# between two looks at whether the broker has answered
STEP_SECONDS = 0.02
STOP_SECONDS = 0.5


class Group:
    """Commits now and then, in a daemon thread of its own, so that nobody waits for it.

    The client holds its thread up for as long as a broker is silent in the middle of a SASL
    exchange, and raises what it should not where a connection breaks. Neither concerns the one
    that reads the log.

    `_positions` is what the thread is told, `_is_refused` what it tells, each replaced as a whole.
    All else belongs to the thread alone.

    Args:
        security: who commits; a refusal is tried again late.
        open_consumer: opens a consumer of the group, which is used for nothing else.
        on_refused: called by `commit` when the ACLs turned out to forbid the group; nothing is
            committed then.
        now: a clock that never goes back, in seconds.
    """

    def __init__(
        self,
        group_id: str,
        security: SecuritySettings,
        open_consumer: Callable[..., KafkaConsumer],
        on_refused: Callable[[], None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.group_id = group_id
        self._security = security
        self._refusals_of_clients = refusals_of(security)
        self._refusals_before = 0
        self._open_consumer = open_consumer
        self._on_refused = on_refused
        self._now = now
        self._is_refused = False
        self._positions: Mapping[TopicPartition, int] = {}
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._consumer: KafkaConsumer | None = None
        self._committed: Mapping[TopicPartition, int] = {}
        self._committed_at = 0.0
        self._failures = 0
        self._refusals = 0
        self._failing_since: float | None = None
        self._told: set[str] = set()

    def commit(self, positions: Mapping[TopicPartition, int]) -> None:
        """To be called again and again, also while nothing has changed. Does not wait."""
        self._positions = positions
        if self._is_refused:
            self._on_refused()
        elif positions and self._thread is None:
            self._thread = threading.Thread(target=self._run, name="group", daemon=True)
            self._thread.start()

    def delete(self, settings: Settings) -> None:
        """Leave no group behind."""
        self.close()
        if self._thread is None or self._is_refused:
            return
        with admin_client(settings) as admin, contextlib.suppress(IncompatibleBrokerVersion):
            # a broker that does not know it, the embedded one for example, keeps no groups for long
            adapter.delete_group(admin, self.group_id)

    def close(self) -> None:
        """End the thread, or leave it to end by itself if the client holds it up."""
        self._stopping.set()
        if self._thread:
            self._thread.join(STOP_SECONDS)

    def _run(self) -> None:
        pause = 0.0
        while not self._stopping.is_set():
            files = self._security.files_stamp()
            try:
                self._pause(pause)
                self._commit_what_is_new()
                self._failures, self._failing_since, pause = 0, None, COMMIT_SECONDS
                self._refusals = 0
            except GroupAuthorizationFailedError:
                self._is_refused = True
                break
            except Refused as error:
                self._note_failure(error)
                self._refusals += 1
                wait_after_refusal(self._security, files, self._refusals, self._stopping.wait)
                pause = 0.0
            except Exception as error:  # noqa: BLE001  # whatever it is, the next try may succeed
                self._note_failure(error)
                pause = backoff_seconds(self._failures, LONGEST_RETRY_SECONDS)
        self._close_consumer()

    def _pause(self, seconds: float) -> None:
        """A client that is between a failure and the next try goes on connecting: it begins to in
        one try, and is ready in the next."""
        if self._failures == 0 or self._consumer is None:
            self._stopping.wait(seconds)
            return
        deadline = self._now() + seconds
        with self._discarding_a_broken_client():
            while not self._stopping.is_set() and self._now() < deadline:
                self._take_a_step()

    def _commit_what_is_new(self) -> None:
        positions = self._positions
        is_recent = self._now() < self._committed_at + COMMIT_UNCHANGED_SECONDS
        if self._stopping.is_set() or (positions == self._committed and is_recent):
            return
        outcomes: list[object] = []
        with self._discarding_a_broken_client():
            if self._consumer is None:
                self._refusals_before = self._refusals_of_clients.count
                self._consumer = self._open_consumer(group_id=self.group_id)
            self._consumer.commit_async(
                # (offset, metadata) and, of some clients, a leader epoch that has a default
                {key: OffsetAndMetadata(offset, "") for key, offset in positions.items()},
                callback=lambda _, outcome: outcomes.append(outcome),
            )
            while not outcomes and not self._stopping.is_set():
                self._take_a_step()
        if not outcomes:  # it is to stop
            return
        if isinstance(outcomes[0], Exception):
            raise outcomes[0]
        self._committed, self._committed_at = positions, self._now()

    def _take_a_step(self) -> None:
        assert self._consumer
        self._stopping.wait(STEP_SECONDS)
        if self._refusals_of_clients.count != self._refusals_before:
            raise TopicLogError("a broker has refused this client")  # a new one finds out once
        adapter.poll_commits(self._consumer)

    @contextlib.contextmanager
    def _discarding_a_broken_client(self) -> Iterator[None]:
        try:
            yield
        except Exception:
            self._close_consumer()
            raise

    def _note_failure(self, error: Exception) -> None:
        now = self._now()
        self._failures += 1
        self._failing_since = now if self._failing_since is None else self._failing_since
        name = type(error).__name__
        if now >= self._failing_since + TOLD_AFTER_SECONDS and name not in self._told:
            self._told.add(name)
            log.warning(
                "The position cannot be committed under the group %s, and following goes on: %s",
                self.group_id,
                error or name,
            )

    def _close_consumer(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer:
            close_quietly(consumer)
