"""The limit of what a consumer can do: says of each message when librdkafka handed it out.

Usage: python -m bench.peers.librdkafka_reader SERVERS TOPIC
"""

from __future__ import annotations

import sys
import time

from confluent_kafka import OFFSET_END, Consumer, TopicPartition

POLL_SECONDS = 0.5


def main(servers: str, topic: str) -> None:
    consumer = Consumer({"bootstrap.servers": servers, "group.id": "unused"})
    consumer.assign([TopicPartition(topic, 0, OFFSET_END)])
    while True:
        message = consumer.poll(POLL_SECONDS)
        if message is not None and not message.error():
            print(message.offset(), time.monotonic(), flush=True)


main(*sys.argv[1:])
