from __future__ import annotations

import gc
import socket
import threading
from collections.abc import Callable
from unittest import mock

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

PATIENCE = "bootstrap_timeout_ms" if IS_KAFKA_PYTHON_3 else "api_version_auto_timeout_ms"


def what_is_left_of(fail: Callable[..., None], *arguments: object) -> tuple[set[str], int]:
    """Give the threads, and how many files, that are there after three failures and not before."""
    gc.disable()  # which would be in time by chance
    threads, files = set(threading.enumerate()), psutil.Process().num_fds()
    for _ in range(3):
        fail(*arguments)
    left = {thread.name for thread in threading.enumerate() if thread not in threads}
    return left, psutil.Process().num_fds() - files


def open_in_vain(client: type[KafkaConsumer | KafkaAdminClient], servers: str) -> None:
    with pytest.raises(KafkaError):
        open_client(client, bootstrap_servers=servers, **{PATIENCE: 300})


@pytest.mark.parametrize("client", [KafkaConsumer, KafkaAdminClient])
def test_a_client_that_does_not_open_leaves_nothing_behind(own_process, client):
    """As with a wrong password, which is tried again and again."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        servers = f"localhost:{mute.getsockname()[1]}"
        left = own_process.submit(what_is_left_of, open_in_vain, client, servers)
        assert left.result(60) == (set(), 0)


@pytest.mark.skipif(IS_KAFKA_PYTHON_3, reason="the embedded broker does not answer kafka-python 3")
def test_a_log_that_does_not_open_leaves_nothing_behind(own_process):
    """As with a broker whose versions are not known."""
    left = own_process.submit(what_is_left_of, open_log_in_vain, EmbeddedBroker().address)
    assert left.result(60) == (set(), 0)


def open_log_in_vain(servers: str) -> None:
    settings = Settings(topic="none", bootstrap_servers=servers)
    unknown = mock.patch.object(exchange.requests, "fetch_version", side_effect=KafkaError)
    with unknown, pytest.raises(KafkaError):
        TopicLog(settings, "group", before_wait=int, on_group_refused=int, while_unanswered=int)


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
