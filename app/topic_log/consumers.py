"""Opens the client's consumers, which neither commit nor choose a position by themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kafka import KafkaConsumer

from app.topic_log.client import connection_options, open_client
from app.topic_log.connectivity import reaching

if TYPE_CHECKING:
    from app.settings import Settings


def open_consumer(settings: Settings, **options: Any) -> KafkaConsumer:
    """
    Args:
        options: on top, as the client has them.

    Raises:
        Unreachable: there is no broker to be talked to, or it refuses the client.
        OSError: a file of certificates or keys can no longer be read.
    """
    with reaching(settings) as server:
        return open_client(
            KafkaConsumer,
            **connection_options(settings, server),
            auto_offset_reset="none",
            enable_auto_commit=False,
            **options,
        )
