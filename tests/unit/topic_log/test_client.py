from __future__ import annotations

import gc
import socket
import threading

import psutil
import pytest
from kafka import KafkaConsumer, KafkaProducer
from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError

from app.settings import Settings, SettingsError
from app.topic_log import TopicLog, exchange
from app.topic_log.admin import create_topic
from app.topic_log.client import check_settings, connection_options, open_client
from app.topic_log.errors import TopicLogError
from dev.broker import EmbeddedBroker
from tests.support.clients import IS_KAFKA_PYTHON_3
from tests.support.waiting import eventually

PATIENCE = "bootstrap_timeout_ms" if IS_KAFKA_PYTHON_3 else "api_version_auto_timeout_ms"


@pytest.mark.parametrize("client", [KafkaConsumer, KafkaAdminClient])
def test_a_client_that_does_not_open_leaves_nothing_behind(client):
    """As with a wrong password, which is tried again and again."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        servers = f"localhost:{mute.getsockname()[1]}"
        gc.collect()  # what other tests left
        threads, files = set(threading.enumerate()), psutil.Process().num_fds()
        for _ in range(3):
            with pytest.raises(KafkaError):
                open_client(client, bootstrap_servers=servers, **{PATIENCE: 300})
        gc.collect()
        assert not set(threading.enumerate()) - threads
        # what other tests left may still be ending, or connecting
        eventually(lambda: psutil.Process().num_fds() <= files)


@pytest.mark.skipif(IS_KAFKA_PYTHON_3, reason="the embedded broker does not answer kafka-python 3")
def test_a_log_that_does_not_open_leaves_nothing_behind(monkeypatch):
    """As with a broker whose versions are not known."""

    def fetch_version(client):
        raise KafkaError

    monkeypatch.setattr(exchange.requests, "fetch_version", fetch_version)
    broker = EmbeddedBroker()
    settings = Settings(topic="none", bootstrap_servers=broker.address)
    files = psutil.Process().num_fds()
    for _ in range(3):
        with pytest.raises(KafkaError):
            TopicLog(settings, "group", before_wait=int, on_group_refused=int, while_unanswered=int)
    eventually(lambda: psutil.Process().num_fds() <= files)


@pytest.mark.skipif(IS_KAFKA_PYTHON_3, reason="the embedded broker does not answer kafka-python 3")
def test_what_to_do_is_said_of_a_broker_that_knows_no_request_to_create_a_topic():
    broker = EmbeddedBroker()
    settings = Settings(topic="none", bootstrap_servers=broker.address)
    with pytest.raises(TopicLogError, match="knows no request to create one; it may create it"):
        create_topic(settings)


def test_a_request_may_take_as_long_as_is_said():
    options = connection_options(
        Settings(topic="t", request_timeout_ms=2000), "localhost:9092", KafkaConsumer
    )
    assert options["request_timeout_ms"] == 2000


def test_options_that_there_is_no_setting_for_are_passed_on():
    settings = Settings(topic="t", client_options='{"receive_buffer_bytes":65536,"linger_ms":5}')
    check_settings(settings)
    options = connection_options(settings, "localhost:9092", KafkaConsumer)
    assert options["receive_buffer_bytes"] == 65536
    assert "linger_ms" not in options  # of producers
    assert connection_options(settings, "localhost:9092", KafkaProducer)["linger_ms"] == 5


@pytest.mark.parametrize(
    "name", ["group_id", "sasl_mechanism", "proxy_url", "fetch_min_bytes", "x"]
)
def test_options_that_have_no_effect_or_a_setting_are_refused(name):
    settings = Settings(topic="t", client_options=f'{{"{name}":"s3cret"}}')
    with pytest.raises(
        SettingsError, match=f"KAFKA_CLIENT_OPTIONS has '{name}': accepted of kafka"
    ) as e:
        check_settings(settings)
    assert "s3cret" not in str(e.value)


def test_brokers_are_told_the_name_of_the_client():
    options = connection_options(Settings(topic="t"), "localhost:9092", KafkaConsumer)
    assert options["client_id"] == "kafka-state"
