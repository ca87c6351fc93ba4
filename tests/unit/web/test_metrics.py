"""What Prometheus is told of one process; of several, tests/integration/web/test_metrics_of_workers.py."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from datetime import datetime, timezone
from types import SimpleNamespace

import pytest
from flask import Flask
from prometheus_client.parser import text_string_to_metric_families

from app.following.status import Progress, Status
from app.model.metrics import ModelMetrics
from app.state import Snapshot
from app.web.metric_definitions import METRICS
from app.web.metrics import Metrics
from tests.support.processes import ended

FOLLOWING = Status(
    "topic",
    "client",
    connected_since=datetime(2026, 1, 1, tzinfo=timezone.utc),
    partitions={0: Progress(5, 7), 1: Progress(3, 3)},
    connections=1,
)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def samples(metrics: Metrics) -> dict[str, float]:
    """By name and labels, as they are written."""
    text = metrics.expose("")[0].decode()
    return {
        sample.name + "".join(f" {key}={value}" for key, value in sorted(sample.labels.items())): (
            sample.value
        )
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_tells_of_following_what_its_status_says(metrics):
    now = time.time()
    metrics.record(replace(FOLLOWING, snapshot=Snapshot("76"), invalid_messages={"json": 1}))
    metrics.record(
        replace(
            FOLLOWING,
            updates=2,
            current_as_of=time.monotonic() - 20,
            snapshot=Snapshot("77", timestamp=int((now - 60) * 1000)),
            invalid_messages={"json": 4},
            failed_loads={"gone": 2},
            skipped_messages=40,
        )
    )
    told = samples(metrics)
    assert told["kafka_state_updates_total"] == 2
    assert told["kafka_state_invalid_messages_total reason=json"] == 3
    assert told["kafka_state_failed_loads_total reason=gone"] == 2
    assert told["kafka_state_skipped_messages_total"] == 40
    assert told["kafka_state_lag partition=0"] == 2
    assert told["kafka_state_lag partition=1"] == 0
    assert told["kafka_state_connected"] == 1
    assert told["kafka_state_reconnects_total"] == 0
    assert told["kafka_state_last_message_timestamp_seconds"] == pytest.approx(now - 60, abs=0.01)
    assert told["kafka_state_age_seconds"] == pytest.approx(60, abs=10)
    assert told["kafka_state_stale_seconds"] == pytest.approx(20, abs=10)
    confirmed = told["kafka_state_confirmed_timestamp_seconds"]
    assert confirmed == pytest.approx(time.time() - 20, abs=10)


def test_does_not_count_invalid_messages_from_before_it_followed(metrics):
    found_at_the_start = replace(FOLLOWING, invalid_messages={"json": 3})
    metrics.record(found_at_the_start)
    metrics.record(replace(found_at_the_start, snapshot=Snapshot("77"), cached=True))
    metrics.record(replace(found_at_the_start, snapshot=Snapshot("78")))
    assert "kafka_state_invalid_messages_total reason=json" not in samples(metrics)


@pytest.mark.parametrize("serves_models", [False, True])
def test_exposes_the_metrics_of_the_list_and_no_others(metrics, serves_models):
    if serves_models:
        metrics.others.append(ModelMetrics(metrics.registry).loaded)
    metrics.record(replace(FOLLOWING, snapshot=Snapshot("77", timestamp=1)))
    families = text_string_to_metric_families(metrics.expose("")[0].decode())
    assert sorted(
        (family.name, family.type, family.documentation) for family in families
    ) == sorted(
        (metric.family_name, metric.kind, metric.meaning)
        for metric in METRICS
        if serves_models or metric.section != "Models"
    )


def test_is_not_stale_while_it_has_never_followed(metrics):
    metrics.record(Status("topic", "client"))
    assert "kafka_state_stale_seconds" not in samples(metrics)


def test_what_was_on_the_disk_is_stale_before_it_follows(metrics):
    stale = replace(Status("topic", "client"), cached=True, current_as_of=time.monotonic() - 20)
    metrics.record(stale)
    assert samples(metrics)["kafka_state_stale_seconds"] == pytest.approx(20, abs=10)


def test_has_no_lag_and_no_age_where_there_is_none_to_tell(metrics):
    names = " ".join(samples(metrics))
    assert "kafka_state_lag" not in names
    assert "kafka_state_age" not in names
    assert "kafka_state_last_message" not in names
    metrics.record(replace(FOLLOWING, updates=1, snapshot=Snapshot("77", timestamp=-1)))
    assert "kafka_state_age" not in " ".join(samples(metrics))


def test_has_no_lag_while_it_does_not_follow(metrics):
    metrics.record(FOLLOWING)
    metrics.record(replace(FOLLOWING, connected_since=None, partitions={}))
    told = samples(metrics)
    assert told["kafka_state_connected"] == 0
    assert "kafka_state_lag partition=0" not in told
    metrics.record(replace(FOLLOWING, connections=2))
    told = samples(metrics)
    assert told["kafka_state_connected"] == 1
    assert told["kafka_state_reconnects_total"] == 1
    assert told["kafka_state_lag partition=0"] == 2


def test_says_nothing_of_a_connection_that_it_has_yet_to_try(metrics):
    metrics.record(Status("topic", "client"))
    assert "kafka_state_connected" not in samples(metrics)
    metrics.record(Status("topic", "client", failures=1))
    assert samples(metrics)["kafka_state_connected"] == 0


IRIS = [SimpleNamespace(name="iris", version=str(version)) for version in range(4)]


def test_a_model_that_is_served_no_more_leaves_no_series_behind(metrics, tmp_path, monkeypatch):
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    of_models = ModelMetrics(metrics.registry)
    metrics.others.append(of_models.loaded)
    for version in range(1, 4):
        of_models.record(version, [IRIS[version], IRIS[version - 1]])
    assert of_info(metrics) == {
        "kafka_state_model_info name=iris version=3",
        "kafka_state_model_kept_info name=iris version=2",
    }
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert kept.count(b"iris") == 2
    of_models.record(3, IRIS[3:])
    assert of_info(metrics) == {"kafka_state_model_info name=iris version=3"}


def of_info(metrics: Metrics) -> set[str]:
    told = samples(metrics).items()
    return {name for name, value in told if "_info" in name and value == 1}


def test_a_swap_is_counted_once_however_often_the_models_are_reported(metrics):
    of_models = ModelMetrics(metrics.registry)
    for updates, loaded in ((0, []), (1, IRIS[:1]), (2, IRIS[:2]), (2, IRIS[:1]), (3, IRIS[:2])):
        of_models.record(updates, loaded)
    assert samples(metrics)["kafka_state_model_swaps_total"] == 2


def test_puts_the_delay_of_each_update_that_has_one_into_the_histogram(metrics):
    for updates, delay in enumerate([None, 0.003, 2.0], start=1):
        metrics.record(replace(FOLLOWING, updates=updates, update_delay=delay))
    metrics.record(replace(FOLLOWING, updates=3, update_delay=2.0, skipped_messages=1))
    told = samples(metrics)
    assert told["kafka_state_update_delay_seconds_count"] == 2
    assert told["kafka_state_update_delay_seconds_sum"] == pytest.approx(2.003)
    assert told["kafka_state_update_delay_seconds_bucket le=0.005"] == 1


def test_counts_requests_by_route_and_not_by_what_clients_make_up(metrics):
    app = Flask("app")
    metrics.register(app)
    app.get("/state")(lambda: "state")
    client = app.test_client()
    for _ in range(3):
        client.get("/state?a=b")
    client.get("/nowhere/1")
    client.get("/nowhere/2")
    client.open("/state", method="BREW")
    told = samples(metrics)
    assert told["http_requests_total method=GET route=/state status=200"] == 3
    assert told["http_request_duration_seconds_count method=GET route=/state status=200"] == 3
    assert told["http_requests_total method=GET route=unmatched status=404"] == 2
    assert told["http_requests_total method=other route=unmatched status=405"] == 1


def test_a_worker_that_begins_or_was_killed_as_it_began_does_not_hide_the_others(
    metrics, tmp_path, monkeypatch
):
    # as prometheus_client leaves it for a moment
    (tmp_path / "counter_1.db").touch()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    assert samples(metrics) == {}


def test_speaks_openmetrics_where_that_is_accepted(metrics):
    text, content_type = metrics.expose("application/openmetrics-text;version=1.0.0")
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    assert text.endswith(b"# EOF\n")
    assert metrics.expose("*/*")[1].startswith("text/plain; version=0.0.4")


FORKING = """
import os, sys
from app.web.metrics import Metrics
from app.following.status import Status

metrics = Metrics()
if os.fork() == 0:
    metrics.begin_process()
    metrics.record(Status("topic", "client", fetches=1))
    os._exit(0)
os.wait()
print(metrics.expose("")[0].decode())
"""


def test_a_forked_process_that_has_yet_to_connect_is_no_outage(tmp_path):
    said = ended([sys.executable, "-c", FORKING], PROMETHEUS_MULTIPROC_DIR=str(tmp_path)).stdout
    assert "kafka_state_fetches_total 1.0\n" in said
    assert "\nkafka_state_connected " not in said
    assert "\nkafka_state_age_seconds " not in said


TWO_WORKERS = """
import os, time
from datetime import datetime
from app.following.status import Progress, Status
from app.state import Snapshot
from app.web.metrics import Metrics

metrics = Metrics()
for number in (1, 2):
    if os.fork() == 0:
        metrics.begin_process()
        metrics.record(
            Status(
                "topic",
                "client",
                connections=1,
                connected_since=datetime.now() if number == 1 else None,
                current_as_of=time.monotonic() - 1000 * number,
                partitions={0: Progress(0, number)},
                snapshot=Snapshot("77", timestamp=number * 1000),
                updates=1,
                update_delay=1.0,
            )
        )
        os._exit(0)
    os.wait()
print(metrics.expose("")[0].decode())
"""


def test_of_two_workers_it_tells_the_sum_or_the_worst(tmp_path):
    command = [sys.executable, "-c", TWO_WORKERS]
    lines = ended(command, PROMETHEUS_MULTIPROC_DIR=str(tmp_path)).stdout.splitlines()
    told = dict(line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
    assert told["kafka_state_updates_total"] == "2.0"
    assert told["kafka_state_update_delay_seconds_count"] == "2.0"
    assert told["kafka_state_connected"] == "0.0"
    assert told['kafka_state_lag{partition="0"}'] == "2.0"
    assert told["kafka_state_last_message_timestamp_seconds"] == "1.0"
    assert float(told["kafka_state_age_seconds"]) == pytest.approx(time.time(), abs=100)
    assert float(told["kafka_state_stale_seconds"]) == pytest.approx(2000, abs=100)
