"""Topics whose messages the broker itself compresses with zstd (KIP-110)."""

from __future__ import annotations

import time

import pytest
from confluent_kafka.admin import (
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ConfigSource,
    ResourceType,
)

from app.topic_log.exchange import requests
from dev import apache_kafka
from tests.support.waiting import eventually

pytestmark = pytest.mark.apache_kafka

REMEDY = "set it to producer, or upgrade the broker"


def test_serves_a_topic_that_is_compressed_with_zstd(make_topic, serve):
    topic = make_topic(compression_type="zstd")
    topic.send_state("before")
    service = serve(topic)
    assert service.first_state() == "before"
    topic.send_state("after")
    assert service.comes_to("after")
    assert service.status["partition_errors"] == {}


def test_goes_on_where_a_topic_becomes_one_that_is_compressed_with_zstd(topic, serve, admin):
    service = serve(topic)
    assert service.first_state() == 0
    become_zstd(admin, topic)
    for number in range(3):
        topic.send_state(number)
        eventually(lambda n=number: service.get().json == {"state": n}, within=1)


def become_zstd(admin, topic) -> None:
    entry = ConfigEntry(
        "compression.type",
        "zstd",
        source=ConfigSource.DYNAMIC_TOPIC_CONFIG,
        incremental_operation=AlterConfigOpType.SET,
    )
    resource = ConfigResource(ResourceType.TOPIC, topic.name, incremental_configs=[entry])
    admin.incremental_alter_configs([resource])[resource].result(30)


@pytest.mark.skipif(
    apache_kafka.is_since(4), reason="Kafka 4 hands it out in every version of the request"
)
def test_says_what_to_do_where_the_broker_does_not_hand_it_out(
    make_topic, serve, monkeypatch, caplog
):
    monkeypatch.setattr(requests, "fetch_version", lambda client: 4)
    topic = make_topic(compression_type="zstd")
    topic.send_state("there")
    service = serve(topic)
    eventually(lambda: REMEDY in service.get("/readyz").json["detail"])
    status = service.status
    assert "UNSUPPORTED_COMPRESSION_TYPE" in status["partitions"]["0"]["error"]
    assert REMEDY in status["partitions"]["0"]["error"]
    assert any(REMEDY in line for line in caplog.messages)
    began = time.monotonic()
    eventually(lambda: time.monotonic() > began + 2)
    assert service.status["fetches"] - status["fetches"] <= 4
    errors = service.status["partition_errors"]["UNSUPPORTED_COMPRESSION_TYPE"]
    assert errors <= service.status["fetches"]


def test_an_error_code_that_nobody_knows_is_named_by_its_number(topic, serve, monkeypatch):
    """No broker sends one, so that one of its answers is changed."""
    answers = requests.fetch_answers
    monkeypatch.setattr(
        requests,
        "fetch_answers",
        lambda response: [(number, 9999, *rest) for number, _, *rest in answers(response)],
    )
    topic.send_state("there")
    service = serve(topic)
    eventually(lambda: service.status["partition_errors"].get("ERROR_9999", 0) > 2)
    assert service.status["partitions"]["0"]["error"].startswith("ERROR_9999: ")
    monkeypatch.setattr(requests, "fetch_answers", answers)
    assert service.first_state() == "there"
