"""The alerts in deploy/prometheus, to Prometheus' own tool, and beside the list of metrics."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml

from tests.support.metrics import SERIES
from tests.support.processes import ROOT

FOLDER = ROOT / "deploy/prometheus"

needs_promtool = pytest.mark.skipif(
    not shutil.which("promtool"), reason="promtool is Debian's package prometheus"
)


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]
    listed: list[dict[str, Any]] = group["rules"]
    return listed


def promtool(*arguments: str) -> None:
    command = subprocess.run(
        ["promtool", *arguments],
        cwd=FOLDER,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert command.returncode == 0, command.stdout + command.stderr


@needs_promtool
def test_prometheus_own_tool_accepts_the_rules():
    promtool("check", "rules", "alerts.yml")


@needs_promtool
def test_each_alert_fires_when_it_should_and_not_otherwise():
    promtool("test", "rules", "alerts_test.yml")


def test_each_alert_is_seen_to_fire_and_to_be_silent_in_one_test():
    tests = yaml.safe_load((FOLDER / "alerts_test.yml").read_text())["tests"]
    shown = set()
    for test in tests:
        firing = [
            set(re.findall(r'alertname="(\w+)"', str(case["exp_samples"])))
            for case in test["promql_expr_test"]
        ]
        shown |= {alert for alerts in firing for alert in alerts} - set.intersection(*firing)
    assert shown == {rule["alert"] for rule in rules()}


def test_the_alerts_name_only_metrics_that_there_are():
    used = {
        name for rule in rules() for name in re.findall(r"\b(?:kafka_state|http)_\w+", rule["expr"])
    }
    assert used
    assert used <= SERIES


def test_each_alert_says_how_bad_it_is_and_what_to_do():
    for rule in rules():
        assert rule["labels"] == {"severity": rule["labels"]["severity"]}
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["for"]
        assert set(rule["annotations"]) == {"summary", "description"}
