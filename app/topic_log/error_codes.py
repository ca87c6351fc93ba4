"""Kafka's names of the error codes, also of those that a client does not know."""

from __future__ import annotations

from kafka.errors import kafka_errors

LEADER_NOT_AVAILABLE = 5
TOPIC_AUTHORIZATION_FAILED = 29

# https://kafka.apache.org/protocol#protocol_error_codes: what a reader can meet, and what it
# means here
MEANINGS = {
    1: ("OFFSET_OUT_OF_RANGE", "what would be read next was deleted"),
    2: ("CORRUPT_MESSAGE", "its leader cannot read it from its disk"),
    3: ("UNKNOWN_TOPIC_OR_PARTITION", "its leader does not know it (any more, or yet)"),
    5: ("LEADER_NOT_AVAILABLE", "it has no leader: the brokers that have it are away"),
    6: ("NOT_LEADER_OR_FOLLOWER", "its leader has just moved"),
    9: ("REPLICA_NOT_AVAILABLE", "a broker that has it is away"),
    56: ("KAFKA_STORAGE_ERROR", "its leader's disk has failed"),
    74: ("FENCED_LEADER_EPOCH", "its leader has just changed"),
    75: ("UNKNOWN_LEADER_EPOCH", "its leader has just changed"),
    76: (
        "UNSUPPORTED_COMPRESSION_TYPE",
        (
            "the topic's or the broker's compression.type is zstd, which this broker does not hand "
            "out in the versions of the fetch request that it knows; set it to producer, or "
            "upgrade the broker to 2.3 or newer"
        ),
    ),
    78: ("OFFSET_NOT_AVAILABLE", "its new leader does not know its end yet"),
    100: ("UNKNOWN_TOPIC_ID", "the topic was deleted"),
}


def look_up(code: int) -> tuple[str, str]:
    """Kafka's name of an error code, `ERROR_<code>` of one that nobody here knows, and what it means
    for an operator."""
    if code in MEANINGS:
        return MEANINGS[code]
    known = kafka_errors.get(code)
    if known:
        return known.message, known.description
    return f"ERROR_{code}", "an error that this client does not know"
