"""What is written from the code is what the code says now."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from app.web.metric_definitions import METRICS
from dev.docs import generated
from dev.docs.dashboard import dashboard
from dev.docs.generated import GENERATED, Generated
from tests.support.metrics import SERIES
from tests.support.processes import ROOT

# Grafana's
GRID_WIDTH = 24


@pytest.mark.parametrize("written", GENERATED, ids=lambda written: written.path)
def test_what_is_generated_is_as_the_code_has_it(written):
    assert written.is_current(), f"{written.path} is outdated: run `python -m dev.docs write`"


@pytest.fixture
def page(tmp_path, monkeypatch) -> Generated:
    monkeypatch.setattr(generated, "ROOT", tmp_path)
    return Generated("page.md", lambda: "new \\1\n", part="list")


def test_only_what_is_between_the_markers_is_written(page):
    page.file.write_text("before\n<!-- generated: list -->\nold\n<!-- /generated -->\nafter\n")
    assert not page.is_current()
    page.file.write_text(page.renewed())
    assert page.file.read_text() == (
        "before\n<!-- generated: list -->\n\nnew \\1\n\n<!-- /generated -->\nafter\n"
    )
    assert page.is_current()


@pytest.mark.parametrize("parts", [0, 2])
def test_a_page_without_its_markers_once_is_an_error_that_names_them(page, parts):
    page.file.write_text("<!-- generated: list -->\n<!-- /generated -->\n" * parts)
    with pytest.raises(ValueError, match=rf"page\.md has {parts} parts .*generated: list"):
        page.renewed()
    other = replace(page, part="another")
    with pytest.raises(ValueError, match="has 0 parts"):
        other.renewed()


def test_the_pages_name_only_metrics_that_there_are():
    pages = [*(ROOT / "docs").glob("*.md"), ROOT / "README.md"]
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
