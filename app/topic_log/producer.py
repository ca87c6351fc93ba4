"""Sending messages to the topic."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from kafka import KafkaProducer
from kafka.errors import (
    BrokerResponseError,
    KafkaError,
    MessageSizeTooLargeError,
    RequestTimedOutError,
    TopicAuthorizationFailedError,
)

from app.topic_log.client import connection_options
from app.topic_log.connectivity import reaching, silent_brokers
from app.topic_log.installed import adapter

if TYPE_CHECKING:
    from app.settings import Settings

SEND_SECONDS = 5.0
CLOSE_SECONDS = 1.0


class Outgoing(NamedTuple):
    """A message to be sent.

    Attributes:
        partition: None where the client chooses.
    """

    value: bytes | None
    key: bytes | None = None
    headers: Sequence[tuple[str, bytes]] = ()
    partition: int | None = None


class Delivery:
    """Sends messages and counts what the broker acknowledges. For the main thread only.

    The client's own thread writes `acknowledged`, `last_offsets` and `_trouble`; all are final once
    `settle` has returned.

    Attributes:
        sent: how many were handed to the client.
        acknowledged: how many of them the brokers have.
        last_offsets: by partition, the highest offset that was acknowledged.
    """

    def __init__(self, settings: Settings) -> None:
        """
        Raises:
            KafkaError: no broker answers.
            OSError: a file of certificates or keys cannot be read.
        """
        self._settings = settings
        self.sent = 0
        self.acknowledged = 0
        self.last_offsets: dict[int, int] = {}
        self._trouble: Exception | None = None
        self._acknowledge_seconds = settings.request_timeout_ms / 1000
        # one that is lost is sent again in time
        request_timeout_ms = settings.request_timeout_ms // 2
        options = {
            **adapter.producer_options(request_timeout_ms),
            "request_timeout_ms": request_timeout_ms,
            "max_request_size": 2**31 - 1,  # what is too large is for the brokers to say
        }
        with reaching(settings) as server:
            self._producer = KafkaProducer(
                **{**connection_options(settings, server, KafkaProducer), **options},
                acks="all",
                max_block_ms=int(SEND_SECONDS * 1000),
            )

    def send_and_wait(self, message: Outgoing) -> tuple[int, int]:
        """Send one; gives the partition and the offset that the broker put it at.

        Raises:
            NotTaken: the broker does not take it; others may go.
            KafkaError: the brokers are away.
        """
        try:
            placed = self._send(message).get(timeout=self._acknowledge_seconds)
        except RequestTimedOutError as error:
            raise NotTaken(f"Not acknowledged: {self.explain(error)}") from error
        except BrokerResponseError as error:
            raise NotTaken(f"Refused by the broker: {self.explain(error)}") from error
        return placed.partition, placed.offset

    def send(self, message: Outgoing) -> None:
        """Send one without waiting. One that the broker refuses is left out.

        Raises:
            KafkaError: the brokers are away, by now.
        """
        self._raise_trouble()
        with contextlib.suppress(BrokerResponseError):
            self._send(message)

    def settle(self) -> None:
        """Wait until all that was sent is acknowledged or has failed.

        Raises:
            KafkaError: the brokers are away.
        """
        self._producer.flush(timeout=self._acknowledge_seconds)
        self._raise_trouble()

    def explain(self, error: KafkaError) -> str:
        """Say what went wrong in words that one can act on."""
        if isinstance(error, BrokerResponseError) and not isinstance(error, RequestTimedOutError):
            return _words(error, self._settings)
        silent = silent_brokers(self._settings, self._producer._metadata)
        return silent or _words(error, self._settings)

    def close(self) -> None:
        with contextlib.suppress(KafkaError):  # what is still under way is counted as failed
            self._producer.close(timeout=CLOSE_SECONDS)

    def _send(self, message: Outgoing) -> Any:
        with _uninterrupted():  # or one might be sent that is counted nowhere
            self.sent += 1
            future = self._producer.send(
                self._settings.topic,
                value=message.value,
                key=message.key,
                headers=list(message.headers),
                partition=message.partition,
            )
            return future.add_callback(self._note_acknowledged).add_errback(self._note_trouble)

    def _note_acknowledged(self, placed: Any) -> None:
        self.acknowledged += 1
        self.last_offsets[placed.partition] = max(
            placed.offset, self.last_offsets.get(placed.partition, 0)
        )

    def _note_trouble(self, error: Exception) -> None:
        if not isinstance(error, BrokerResponseError):
            self._trouble = error

    def _raise_trouble(self) -> None:
        if self._trouble:
            raise self._trouble


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold a Ctrl-C back until the end of the block. For the main thread only."""
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if came:
            raise KeyboardInterrupt


class NotTaken(Exception):
    """One message was not taken; the text says why."""


def _words(error: KafkaError, settings: Settings) -> str:
    if isinstance(error, TopicAuthorizationFailedError):
        return (
            f"the ACLs do not let {settings.security.who} write to {settings.topic}: "
            "it needs DESCRIBE and WRITE"
        )
    if isinstance(error, MessageSizeTooLargeError):
        return (
            "the message is larger than they take (max.message.bytes of the topic); a model can "
            "be left elsewhere, and fetched from there: --uri"
        )
    return str(error)
