"""A broker that throttles: its answers come late and hold nothing, and nothing else is wrong."""

from __future__ import annotations

import subprocess

import pytest

from dev import apache_kafka
from dev.apache_kafka import ApacheKafka
from tests.support.topics import Topic, new_topic

pytestmark = [pytest.mark.own_kafka, pytest.mark.xdist_group("quotas")]

# of the last ten seconds together
BYTES_A_SECOND = 1000
CLIENT_ID = "limited"


@pytest.fixture(scope="module")
def kafka():
    with apache_kafka.running() as kafka:
        limit(kafka, CLIENT_ID, BYTES_A_SECOND)
        yield kafka


@pytest.fixture
def topic(kafka) -> Topic:
    return new_topic(kafka.address)


def limit(kafka: ApacheKafka, client_id: str, bytes_a_second: int) -> None:
    entity = ["--entity-type", "clients", "--entity-name", client_id]
    quota = ["--alter", "--add-config", f"consumer_byte_rate={bytes_a_second}"]
    command = apache_kafka.java(
        "kafka.admin.ConfigCommand", "--bootstrap-server", kafka.address, *entity, *quota
    )
    subprocess.run(command, check=True, timeout=60, capture_output=True)


def test_messages_beyond_the_quota_are_late_and_no_failure(topic, serving):
    topic.send_state(0)
    with serving(KAFKA_CLIENT_ID=CLIENT_ID) as program:
        program.comes_to(0)
        for state in [letter * 4 * BYTES_A_SECOND for letter in "abc"]:
            topic.send_state(state)
            program.comes_to(state)
        status = program.get("/status").json()
        assert (status["partition_errors"], status["failures"]) == ({}, 0)
        (line,) = [line for line in program.told if "quota" in line]
        assert "A quota is used up, so messages come late: broker 1 at localhost:" in line
