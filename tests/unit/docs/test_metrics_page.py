"""The page of the metrics and the dashboard show those that there are, and nothing else."""

from __future__ import annotations

import json
import re

import pytest

from app.web.metric_definitions import METRICS
from dev.docs.dashboard import dashboard
from dev.docs.pages import FILES, FOLDER
from tests.support.metrics import SERIES
from tests.support.processes import ROOT

# Grafana's
GRID_WIDTH = 24


@pytest.mark.parametrize("name", FILES)
def test_generated_files_are_as_python_m_dev_docs_writes_them(name):
    assert (ROOT / name).read_text() == FILES[name](), "run: make docs"


def test_the_page_lists_every_metric_with_its_labels_and_no_other():
    tables = (FOLDER / "metrics.md").read_text().partition("\n## Every metric\n")[2]
    listed = re.findall(r"^\| `(\w+)(?:\{([\w,]+)\})?` \|", tables, re.MULTILINE)
    assert listed == [(metric.name, ",".join(metric.labels)) for metric in METRICS]


def test_the_pages_name_only_metrics_that_there_are():
    pages = [*FOLDER.glob("*.md"), ROOT / "README.md"]
    named = {
        name
        for page in pages
        for name in re.findall(r"`((?:kafka_state|http)_\w+)(?:\{[\w,]+\})?`", page.read_text())
    }
    assert named
    assert named <= SERIES | {metric.name for metric in METRICS}


def test_the_dashboard_has_a_panel_for_each_metric_and_none_lies_on_another():
    panels = json.loads(dashboard())["panels"]
    described = [panel["description"] for panel in panels if panel["type"] != "row"]
    assert [text.rpartition("(")[2] for text in described] == [f"{m.name})" for m in METRICS]
    assert len({panel["id"] for panel in panels}) == len(panels)
    covered = [
        (x, y)
        for at in (panel["gridPos"] for panel in panels)
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(covered) == len(set(covered))
    assert max(x for x, _ in covered) < GRID_WIDTH
