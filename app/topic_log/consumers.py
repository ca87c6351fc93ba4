"""Opens and closes the client's consumers, which neither commit nor choose a position by
themselves."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kafka import KafkaConsumer

from app.topic_log.client import connection_options, open_client
from app.topic_log.connectivity import reaching
from app.topic_log.tokens import do_nothing

if TYPE_CHECKING:
    from app.settings import Settings


def open_consumer(
    settings: Settings, while_unanswered: Callable[[], None] = do_nothing, **options: Any
) -> KafkaConsumer:
    """
    Args:
        while_unanswered: called now and then until a broker has answered; may raise to end it.
        options: on top, as the client has them.

    Raises:
        Unreachable: there is no broker to be talked to, or it refuses the client.
        OSError: a file of certificates or keys can no longer be read.
    """
    with reaching(settings, while_unanswered) as server:
        return open_client(
            KafkaConsumer,
            **connection_options(settings, server, KafkaConsumer),
            auto_offset_reset="none",
            enable_auto_commit=False,
            **options,
        )


class _ClientSilence:
    """While at least one thread is in it, the client logs nothing. For any thread."""

    def __init__(self) -> None:
        self._log = logging.getLogger("kafka")
        self._level = logging.NOTSET
        self._lock = threading.Lock()  # of how many there are, and of the level to go back to
        self._inside = 0

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._level = self._log.level
                self._log.setLevel(logging.CRITICAL)
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._log.setLevel(self._level)


client_silence = _ClientSilence()


def close_quietly(consumer: KafkaConsumer) -> None:
    """Close in silence: what the client says of the requests it cancels then is no news."""
    with client_silence:
        consumer.close(autocommit=False)
