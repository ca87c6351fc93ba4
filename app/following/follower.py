"""Follows every partition over one connection to the log, each for itself."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

from app.following.latest import CannotReadBack, LatestMessages, Validate
from app.following.locate import Accepted
from app.following.partition_reader import PartitionReader
from app.following.status import Progress
from app.message import StateMessage
from app.topic_log import Answer, Fetched, PartitionError, Record, TopicLog

# a little longer than a broker waits for a record
WAIT_SECONDS = 0.6
READ_BACK_SECONDS = 5.0
# a partition in trouble is waited for so long: to elect a leader takes less
IN_TROUBLE_SECONDS = 5.0


class Follower:
    """Asks the log for what is not known yet, and hands what comes to `LatestMessages`. For the
    consumer thread only.

    Attributes:
        has_read: whether records were fetched from any partition. Ends prove nothing: brokers tell
            them also to clients that may not read.
        passed: how many offsets were read through since the partitions were located.
        skipped: how many of those were not validated: there was a newer message, or none at all.
    """

    def __init__(
        self,
        log: TopicLog,
        accept: Validate,
        on_undecodable: Callable[[int, int, str], None],
        on_error: Callable[[PartitionError], None],
        on_recovery: Callable[[int], None],
    ) -> None:
        self._log = log
        self._accept = accept
        self._on_undecodable = on_undecodable
        self._on_error = on_error
        self._on_recovery = on_recovery
        self._readers: dict[int, PartitionReader[StateMessage]] = {}
        # came while another partition was read back
        self._held: list[Answer] = []
        self.has_read = False
        self.passed = 0
        self.skipped = 0

    def step(self, latest: LatestMessages) -> None:
        """Ask for what is not known yet, take the answers, and move `latest` by them; returns after
        half a second if there are none."""
        self._add_partitions(latest)
        held, self._held = self._held, []
        for answer in held or self._ask():
            self._take(answer, latest)

    def _ask(self) -> list[Answer]:
        now = time.monotonic()
        asks = {
            partition: ask
            for partition, reader in self._readers.items()
            if (ask := reader.next_ask(now))
        }
        return self._log.ask(asks, WAIT_SECONDS)

    def _take(self, answer: Answer, latest: LatestMessages) -> None:
        reader = self._readers[answer.partition]
        if isinstance(answer, Fetched):
            self.has_read = True
            if answer.log_start is not None:
                latest.trim_before(answer.partition, answer.log_start)
        had_failed = reader.error
        advance = reader.take(answer, time.monotonic())
        if reader.error:
            self._note_error(reader, reader.error)
        elif had_failed:
            self._on_recovery(answer.partition)
        if advance and advance.is_whole_log:
            latest.locate(answer.partition, advance.tail, advance.offsets)
        elif advance:
            self.passed += len(advance.offsets)
            self.skipped += len(advance.offsets) - advance.validated
            if advance.tail:
                latest.append(advance.tail, since=advance.offsets.start)

    def _note_error(self, reader: PartitionReader[StateMessage], error: PartitionError) -> None:
        self._on_error(error)
        self._log.want_metadata()
        if not self._log.tells_epochs(error.partition):
            reader.locate_again()  # the next leader may lack what this one had

    def _add_partitions(self, latest: LatestMessages) -> None:
        partitions = self._log.partitions()
        if partitions != self._readers.keys():
            latest.keep_only(partitions)
            for partition in sorted(partitions - self._readers.keys()):
                self._readers[partition] = PartitionReader(
                    self._accept,
                    functools.partial(self._on_undecodable, partition),
                )
        new = self._log.new_leaders() & self._readers.keys()
        self._held = [answer for answer in self._held if answer.partition not in new]
        for partition in new:
            self._log.forget(partition)
            self._readers[partition].on_new_leader()

    @property
    def fetches(self) -> int:
        """How many requests for records were sent."""
        return self._log.fetches

    @property
    def positions(self) -> dict[int, int]:
        """By partition, the offset that is read next; of those that are located."""
        return {
            partition: reader.position
            for partition, reader in self._readers.items()
            if reader.position is not None
        }

    @property
    def progress(self) -> dict[int, Progress]:
        return {
            partition: Progress(
                reader.position, reader.end, str(reader.error) if reader.error else None
            )
            for partition, reader in self._readers.items()
        }

    @property
    def confirmed_at(self) -> float | None:
        """When every partition was last confirmed to be read up to its end, on the clock of
        `time.monotonic`; None before the first time."""
        times = [reader.confirmed_at for reader in self._readers.values()]
        known = [time for time in times if time is not None]
        return min(known) if known and len(known) == len(times) else None

    @property
    def missing(self) -> dict[int, PartitionError | None]:
        """The partitions that are not located, and the error that keeps them from it, if any."""
        return {
            partition: reader.error
            for partition, reader in self._readers.items()
            if reader.position is None
        }

    @property
    def is_located(self) -> bool:
        """Whether every partition is, but for those that have been in trouble for some time."""
        now = time.monotonic()
        return self.has_read and all(
            reader.position is not None
            or (reader.error and now - reader.failing_since > IN_TROUBLE_SECONDS)
            for reader in self._readers.values()
        )

    def read_back(
        self, partition: int, offsets: range, accept: Callable[[Record], Accepted | None]
    ) -> Accepted | None:
        """Find the last message within `offsets` that `accept` accepts.

        Raises:
            CannotReadBack: the partition cannot be read now.
        """
        if error := self._readers[partition].error:
            raise CannotReadBack(f"partition {partition}: {error}")
        self._log.forget(partition)
        reader = PartitionReader(accept, functools.partial(self._on_undecodable, partition))
        advance = reader.read_through(offsets)
        answered_at = time.monotonic()
        try:
            while advance is None:
                now = time.monotonic()
                if now > answered_at + READ_BACK_SECONDS:
                    raise CannotReadBack(f"partition {partition}: no answer")
                ask = reader.next_ask(now)
                answers = self._log.ask({partition: ask} if ask else {}, WAIT_SECONDS)
                self._held += [answer for answer in answers if answer.partition != partition]
                for answer in (answer for answer in answers if answer.partition == partition):
                    advance = reader.take(answer, now)
                    if reader.error:  # which the partition's own reader meets too, and handles
                        raise CannotReadBack(f"partition {partition}: {reader.error}")
                    answered_at = time.monotonic()
        finally:
            # a later answer is not for the partition's own reader
            self._log.forget(partition)
        return advance.tail
