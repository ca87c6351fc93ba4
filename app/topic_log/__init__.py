"""The topic as a log that is read by offset: the only package that knows the Kafka client.

What differs between the clients it runs on is in a folder for each, behind one interface
(`adapter`); no other module knows a client by name.
"""

# first, for it says what to do where there is no client
from app.topic_log.installed import CLIENT

# isort: split
from kafka.errors import KafkaError

from app.topic_log.admin import create_topic
from app.topic_log.answers import (
    Answer,
    Ask,
    AskEnds,
    AskRecords,
    Ends,
    Fetched,
    PartitionError,
)
from app.topic_log.batches import Record
from app.topic_log.client import check_settings, explain
from app.topic_log.errors import NotAllowed, Refused, TopicLogError
from app.topic_log.log import TopicLog
from app.topic_log.lookup import read_message
from app.topic_log.producer import Delivery, NotTaken, Outgoing
from app.topic_log.sign_in import wait_after_refusal

__all__ = [
    "CLIENT",
    "Answer",
    "Ask",
    "AskEnds",
    "AskRecords",
    "Delivery",
    "Ends",
    "Fetched",
    "KafkaError",
    "NotAllowed",
    "NotTaken",
    "Outgoing",
    "PartitionError",
    "Record",
    "Refused",
    "TopicLog",
    "TopicLogError",
    "check_settings",
    "create_topic",
    "explain",
    "read_message",
    "wait_after_refusal",
]
