"""Requests to the partitions' leaders, and their answers, each partition for itself.

The clients' own consumers raise one partition's error in place of the others' records, turn error
codes that they do not know into empty answers, and wait for all partitions before they hand out
any. Here connections, metadata and the encoding are the client's; what is asked of which
partition, and what becomes of each answer, is decided here.
"""

from __future__ import annotations

import functools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from kafka import KafkaConsumer
from kafka.errors import KafkaError, TopicAuthorizationFailedError

from app.topic_log.answers import Answer, Ask, AskEnds, AskRecords, Ends, Fetched, PartitionError
from app.topic_log.batches import Batches
from app.topic_log.connections import PATIENCE_SECONDS, Connections
from app.topic_log.error_codes import (
    TOPIC_AUTHORIZATION_FAILED,
    look_up,
)
from app.topic_log.installed import adapter
from app.topic_log.leaders import Leader, Leaders
from app.topic_log.replicas import Replicas

requests = adapter.requests

# how long a broker may wait for a record, and where there should be one
WAIT_MS = 500
READ_MS = 10
# of all partitions in one answer, so that a thousand of them do not fill the memory
ANSWER_BYTES = 16 * 1024 * 1024
# how long a step of the network takes at most while a connection is being made
CONNECTING_MS = 50

EARLIEST, LATEST = -2, -1
NO_ANSWER = "NO_ANSWER"
NO_CONNECTION = "NO_CONNECTION"


@dataclass
class _Request:
    """Requests to one broker that are under way, about these partitions.

    Attributes:
        ends: what has come of the two requests for ends: by timestamp, offsets by partition.
    """

    node: int
    asks: Mapping[int, Ask]
    sent_at: float
    due: float
    responses_left: int
    ends: dict[int, dict[int, int]] = field(default_factory=lambda: defaultdict(dict))


class Exchange:
    """Asks the partitions' leaders and gives their answers. For the thread that follows.

    Attributes:
        leaders: who is asked.
        fetches: how many requests for records were sent.
    """

    def __init__(
        self,
        consumer: KafkaConsumer,
        topic: str,
        reads_committed: bool,
        rack: str,
        metadata_seconds: float,
    ) -> None:
        """
        Args:
            rack: where this client is; empty where it is not known.
            metadata_seconds: for how long metadata counts.
        """
        self._client = consumer._client
        self._connections = Connections(consumer._client)
        self._topic = topic
        self.leaders = Leaders(consumer._client.cluster, topic)
        self._replicas = Replicas(rack, metadata_seconds)
        self._reads_committed = reads_committed
        self._fetch_version = requests.fetch_version(self._client)
        self._under_way: list[_Request] = []
        self._awaited: dict[int, _Request] = {}
        self._arrived: list[Callable[[], Iterator[Answer]]] = []
        self._answers: list[Answer] = []
        # what the leader is to be asked, or in its place one that is nearer, by broker
        self._redirected: dict[int, dict[int, Ask]] = defaultdict(dict)
        self.fetches = 0

    def forget(self, partition: int) -> None:
        """Take no answer any more to what this partition was asked."""
        self._awaited.pop(partition, None)
        self._answers = [answer for answer in self._answers if answer.partition != partition]
        for asks in self._redirected.values():
            asks.pop(partition, None)

    def ask(self, asks: Mapping[int, Ask], timeout: float) -> list[Answer]:
        """Ask what is not asked yet, and give the answers as soon as there are some.

        Args:
            asks: by partition; one that has yet to be answered is not asked again.
            timeout: seconds; then it gives none.

        Raises:
            TopicAuthorizationFailedError: the ACLs do not let this client read.
        """
        deadline = time.monotonic() + timeout
        unsent = self._by_broker(asks)
        while True:
            self._send_redirected(unsent)
            self._send(unsent)
            left = 0.0 if self._answers else max(deadline - time.monotonic(), 0.0)
            self._client.poll(timeout_ms=min(left * 1000, CONNECTING_MS if unsent else WAIT_MS))
            self._read_what_arrived()
            self._notice_late_ones()
            if self._answers or not left:
                answers, self._answers = self._answers, []
                return answers

    def _by_broker(self, asks: Mapping[int, Ask]) -> dict[int, dict[int, Ask]]:
        by_broker: dict[int, dict[int, Ask]] = defaultdict(dict)
        for partition, ask in asks.items():
            if partition in self._awaited:
                continue
            if error := self.leaders.error(partition):
                self._answers.append(_error(partition, error))
            else:
                by_broker[self._broker_to_ask(partition, ask)][partition] = ask
        return by_broker

    def _broker_to_ask(self, partition: int, ask: Ask) -> int:
        """Only for what is new: what was there before, a replica may not have yet."""
        is_for_new = isinstance(ask, AskRecords) and ask.may_wait
        nearest = self._replicas.nearest(partition) if is_for_new else None
        return self._leader(partition).node if nearest is None else nearest

    def _send_redirected(self, unsent: dict[int, dict[int, Ask]]) -> None:
        redirected, self._redirected = self._redirected, defaultdict(dict)
        for node, asks in redirected.items():
            unsent.setdefault(node, {}).update(asks)

    def _leader(self, partition: int) -> Leader:
        leader = self.leaders.of(partition)
        assert leader
        return leader

    def _send(self, unsent: dict[int, dict[int, Ask]]) -> None:
        for node in [*unsent]:
            if any(request.node == node for request in self._under_way):
                del unsent[node]  # asked again when what is under way is answered
            elif self._connections.is_ready(node):
                self._send_to(node, unsent.pop(node))
            elif self._connections.gives_up(node):
                detail = self._connections.why_unconnected(node)
                for partition, ask in unsent.pop(node).items():
                    self._answers += self._failed(node, partition, ask, NO_CONNECTION, detail)

    def _send_to(self, node: int, asks: Mapping[int, Ask]) -> None:
        records = {p: ask for p, ask in asks.items() if isinstance(ask, AskRecords)}
        ends = {p: ask for p, ask in asks.items() if isinstance(ask, AskEnds)}
        level = int(self._reads_committed)
        may_wait = not ends and all(ask.may_wait for ask in records.values())
        wait_ms = WAIT_MS if may_wait else READ_MS
        if ends:
            request = self._begin(node, ends, 0, responses=2)
            for timestamp in (EARLIEST, LATEST):
                self._send_request(
                    request,
                    requests.ends_request(self._topic, ends, timestamp, level),
                    functools.partial(self._ends, request, timestamp),
                )
        if records:
            request = self._begin(node, records, wait_ms, responses=1)
            in_order = sorted(records.items(), key=lambda item: not item[1].first)
            partitions = [
                (partition, self._leader(partition).epoch, ask.offset, ask.max_bytes)
                for partition, ask in in_order
            ]
            self.fetches += 1
            self._send_request(
                request,
                requests.fetch_request(
                    self._fetch_version,
                    self._topic,
                    partitions,
                    wait_ms,
                    ANSWER_BYTES,
                    level,
                    self._replicas.rack if may_wait else "",
                ),
                functools.partial(self._fetched, request, [*dict(in_order)]),
            )

    def _begin(self, node: int, asks: Mapping[int, Ask], wait_ms: int, responses: int) -> _Request:
        now = time.monotonic()
        due = now + wait_ms / 1000 + PATIENCE_SECONDS
        request = _Request(node, asks, now, due, responses)
        self._under_way.append(request)
        self._awaited.update(dict.fromkeys(asks, request))
        return request

    def _send_request(
        self, request: _Request, message: Any, read: Callable[[Any], Iterator[Answer]]
    ) -> None:
        # no more than noted here: the clients swallow what is raised in a callback
        sent = self._client.send(request.node, message)
        sent.add_callback(lambda response: self._arrived.append(lambda: read(response)))
        sent.add_errback(lambda error: self._arrived.append(lambda: self._lost(request, error)))
        sent.add_both(lambda _: self._arrived.append(lambda: self._ended(request)))

    def _read_what_arrived(self) -> None:
        arrived, self._arrived = self._arrived, []
        for read in arrived:
            self._answers += [*read()]

    def _ended(self, request: _Request) -> Iterator[Answer]:
        request.responses_left -= 1
        if request.responses_left == 0 and request in self._under_way:
            self._under_way.remove(request)
            # not silent where a broker leaves out what it was asked
            yield from self._failures(
                request, NO_ANSWER, f"{self._connections.name(request.node)} left it out"
            )

    def _lost(self, request: _Request, error: Exception) -> Iterator[Answer]:
        """A connection that was good ends now and then: a session is over, or it was idle. Then all
        is asked once more over the next one."""
        if self._connections.was_good(request.node, request.sent_at):
            self._replicas.note_failure()
            self.want_metadata()  # or the broker is gone
            self._ask_again(request)
            return
        detail = f"{self._connections.name(request.node)} did not answer: {error or type(error).__name__}"
        yield from self._failures(request, NO_CONNECTION, detail)

    def _ask_again(self, request: _Request) -> None:
        for partition, ask in request.asks.items():
            if self._claim(request, partition):
                self._redirected[self._broker_to_ask(partition, ask)][partition] = ask

    def _failures(self, request: _Request, name: str, detail: str) -> Iterator[Answer]:
        for partition, ask in request.asks.items():
            if self._claim(request, partition):
                yield from self._failed(request.node, partition, ask, name, detail)

    def _failed(
        self, node: int, partition: int, ask: Ask, name: str, detail: str
    ) -> Iterator[Answer]:
        """What a broker that is nearer than the leader does not answer, the leader is asked."""
        leader = self._leader(partition).node
        if node == leader or not self._replicas.are_asked:
            yield PartitionError(partition, name, detail)
            return
        self._replicas.note_failure()
        self._redirected[leader][partition] = ask

    def _claim(self, request: _Request, partition: int) -> bool:
        """Whether the partition still awaits the answer to this request; then it has it now."""
        if self._awaited.get(partition) is not request:
            return False
        del self._awaited[partition]
        return True

    def _ends(self, request: _Request, timestamp: int, response: Any) -> Iterator[Answer]:
        for partition, error, offset in requests.ends_answers(response):
            if error:
                if self._claim(request, partition):
                    yield _error(partition, error)
                continue
            request.ends[timestamp][partition] = offset
            start = request.ends[EARLIEST].get(partition)
            end = request.ends[LATEST].get(partition)
            if start is not None and end is not None and self._claim(request, partition):
                yield Ends(partition, start, end)

    def _fetched(self, request: _Request, in_order: list[int], response: Any) -> Iterator[Answer]:
        whole = getattr(response, "error_code", 0)  # versions before 7 have none
        if whole:
            yield from self._failures(request, *look_up(whole))
            return
        answers = {answer[0]: answer[1:] for answer in requests.fetch_answers(response)}
        if not answers and response.throttle_time_ms:
            self._connections.mute(request.node, response.throttle_time_ms / 1000)
            self._ask_again(request)
            return
        none_before = True
        for partition in in_order:
            if partition not in answers:
                continue
            error, high_watermark, stable, log_start, aborted, nearest, records = answers[partition]
            is_conclusive, none_before = none_before, none_before and not records
            if not self._claim(request, partition):
                continue
            ask = request.asks[partition]
            assert isinstance(ask, AskRecords)
            if error:
                _require_authorized(error)
                yield from self._failed(request.node, partition, ask, *look_up(error))
                continue
            if nearest not in (-1, request.node):
                self._replicas.note(partition, nearest)
                self._redirected[nearest][partition] = ask
                continue
            try:
                batches = Batches(partition, records, aborted if self._reads_committed else ())
            except KafkaError as unreadable:
                yield PartitionError(partition, "UNREADABLE_ANSWER", str(unreadable))
                continue
            if request.node == self._replicas.nearest(partition):
                # it hears of the end later than the leader has told it
                stable = max(stable, ask.offset)
                high_watermark = max(high_watermark, ask.offset)
            end = stable if self._reads_committed and stable >= 0 else high_watermark
            yield Fetched(partition, ask, end, high_watermark, log_start, batches, is_conclusive)

    def _notice_late_ones(self) -> None:
        """Wait no longer for what is late: the partition may have a new leader. The broker is asked
        nothing more until it answers or the client gives it up."""
        now = time.monotonic()
        late = [request for request in self._under_way if now > request.due]
        heard = self._client.heard() if late else {}
        for request in late:
            # one that holds a large record may take longer to arrive
            if heard.get(request.node, PATIENCE_SECONDS) >= PATIENCE_SECONDS:
                request.due = float("inf")
                detail = f"{self._connections.name(request.node)} has not answered for some seconds"
                self._answers += self._failures(request, NO_ANSWER, detail)

    def want_metadata(self) -> None:
        """Have the client ask for metadata: leaders may have changed."""
        self._client.cluster.request_update()


def _error(partition: int, code: int) -> PartitionError:
    """
    Raises:
        TopicAuthorizationFailedError: which goes for every partition.
    """
    _require_authorized(code)
    return PartitionError(partition, *look_up(code))


def _require_authorized(code: int) -> None:
    if code == TOPIC_AUTHORIZATION_FAILED:
        raise TopicAuthorizationFailedError
