"""What a real Prometheus makes of the metrics, the alerts and the dashboard."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from app.web.metric_definitions import METRICS, PARTITION_ERRORS
from tests.support import models
from tests.support.metrics import SERIES
from tests.support.processes import ROOT, Program
from tests.support.prometheus import Prometheus, scraping
from tests.support.waiting import eventually

# no partition is in trouble here
UNSEEN = PARTITION_ERRORS.name
X = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [0, 0]}


@pytest.fixture
def service(topic, serving) -> Iterator[Program]:
    """One with a model that is served, one that is kept, one that was refused, and two workers."""
    topic.send_state(models.message(models.adding(1), "1"))
    with serving("--workers=2") as program:
        program.serves_model("1")
        eventually(lambda: program.output.count("Initializing API") == 2)
        topic.send_state(models.message(models.adding(2), "2"))
        program.serves_model("2")
        topic.send_state(models.message(b"junk", "3"))
        eventually(lambda: "kafka_state_failed_loads_total" in program.get("/metrics").text)
        infer(program)
        yield program


def infer(program: Program) -> None:
    url = f"http://127.0.0.1:{program.port}/v2/models/m/infer"
    assert requests.post(url, json={"inputs": [X]}, timeout=10).ok


def test_a_service_of_models_exposes_the_metrics_of_the_list_and_no_others(service):
    families = list(text_string_to_metric_families(service.get("/metrics").text))
    listed = {metric.family_name: (metric.kind, metric.meaning) for metric in METRICS}
    del listed[UNSEEN.removesuffix("_total")]
    assert {family.name: (family.type, family.documentation) for family in families} == listed
    labels = {metric.family_name: set(metric.labels) for metric in METRICS}
    for family in families:
        for sample in family.samples:
            assert sample.name in SERIES
            assert sample.labels.keys() - {"le"} == labels[family.name]


@pytest.mark.skipif(
    not shutil.which("prometheus"), reason="prometheus is Debian's package prometheus"
)
def test_every_panel_of_the_dashboard_has_data_and_every_alert_is_computed(
    service, topic, tmp_path
):
    with scraping(service, tmp_path) as prometheus:

        def is_complete() -> bool:
            # for the rates, while it is scraped
            topic.send_state(models.message(models.adding(2), "2"))
            infer(service)
            service.get("/state")
            silent = without_data(prometheus)
            print("without data:", *silent)
            return silent == {UNSEEN}

        eventually(is_complete, within=60)
        eventually(lambda: health(prometheus) == {"ok"})
        # of the junk; it fires after a minute
        eventually(lambda: alerts(prometheus) == {"KafkaStateMessagesRefused"})


def health(prometheus: Prometheus) -> set[str]:
    """Whether the rules were computed."""
    (group,) = prometheus.ask("rules")["groups"]
    return {rule["health"] for rule in group["rules"]}


def alerts(prometheus: Prometheus) -> set[str]:
    """Those that fire, or will if it stays as it is."""
    return {alert["labels"]["alertname"] for alert in prometheus.ask("alerts")["alerts"]}


def without_data(prometheus: Prometheus) -> set[str]:
    """The metrics of the panels of which some query gives nothing."""
    dashboard = json.loads((ROOT / "deploy/grafana/dashboard.json").read_text())
    return {
        panel["description"].rpartition("(")[2].rstrip(")")
        for panel in dashboard["panels"]
        for target in panel.get("targets", ())
        if not prometheus.values(as_grafana_sends(target["expr"]))
    }


def as_grafana_sends(expression: str) -> str:
    chosen = expression.replace("$job", ".+").replace("$instance", ".+")
    return chosen.replace("$__rate_interval", "10s")
