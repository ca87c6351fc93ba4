"""Logs nobody thought of, on the broker, against the obvious slow reading of what was sent."""

from __future__ import annotations

import time

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

PARTITIONS = 4
NOW = int(time.time() * 1000)

MESSAGES = st.tuples(
    st.integers(0, PARTITIONS - 1),
    st.sampled_from(["valid", "invalid", "tombstone"]),
    st.integers(NOW - 60_000, NOW),  # timestamp, in any order
)
# runs of equal messages, so that tails are at all depths
LOGS = st.lists(st.tuples(MESSAGES, st.integers(1, 200)), max_size=12)


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(LOGS, st.integers(0, 12))
def test_serves_what_reading_from_the_beginning_finds(make_topic, serve, log, sent_before):
    topic = make_topic(partitions=PARTITIONS)
    tails: dict[int, tuple[int, int, str]] = {}

    def send(part: list) -> None:
        for (partition, kind, timestamp), times in part:
            state = f"state {len(tails)} {partition} {timestamp}"
            value = {"valid": f'{{"state":"{state}"}}'.encode(), "invalid": b"{}"}.get(kind)
            topic.send(*[value] * times, partition=partition, timestamp=timestamp)
            if kind == "valid":
                tails[partition] = (timestamp, partition, state)

    send(log[:sent_before])
    service = serve(topic)
    assert service.first_state() == (max(tails.values())[2] if tails else 0)
    send(log[sent_before:])
    assert service.comes_to(max(tails.values())[2] if tails else 0)
    service.consumer.stop(10)
