"""The topic as a log that is read by offset: the only package that knows the Kafka client.

It runs on kafka-python-ng 2.2 and, unchanged, on kafka-python 3; where a line is there for one of
them, it says so.
"""

from kafka.errors import KafkaError

from app.topic_log.answers import (
    Answer,
    Ask,
    AskEnds,
    AskRecords,
    Ends,
    Fetched,
    PartitionError,
)
from app.topic_log.client import TopicLogError, connection_options, explain
from app.topic_log.connectivity import reaching, silent_brokers
from app.topic_log.installed import CLIENT
from app.topic_log.log import TopicLog

__all__ = [
    "CLIENT",
    "Answer",
    "Ask",
    "AskEnds",
    "AskRecords",
    "Ends",
    "Fetched",
    "KafkaError",
    "PartitionError",
    "TopicLog",
    "TopicLogError",
    "connection_options",
    "explain",
    "reaching",
    "silent_brokers",
]
