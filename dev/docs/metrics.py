"""The part of docs/metrics.md that is written from the list of metrics."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

from app.web.metric_definitions import METRICS, AnyDefinition, HistogramDefinition

HEAD = """\
| metric | kind | unit | of several workers | what it is |
|---|---|---|---|---|
"""


def metrics_tables() -> str:
    """Give a table for each section, and the buckets of its histograms."""
    return "\n\n".join(
        f"### {section}\n\n{HEAD}{_rows(of_section)}"
        for section, of_section in groupby(METRICS, lambda metric: metric.section)
    )


def _rows(of_section: Iterable[AnyDefinition]) -> str:
    listed = list(of_section)
    rows = "".join(
        f"| `{metric.name}{_labels(metric)}` | {metric.kind} | {metric.unit} "
        f"| {metric.over_workers} | {metric.meaning} |\n"
        for metric in listed
    )
    buckets = "".join(
        f"\n- `{metric.name}`: {', '.join(map(_decimal, metric.buckets))}"
        for metric in listed
        if isinstance(metric, HistogramDefinition)
    )
    return f"{rows}\nBuckets, by their upper bounds:\n{buckets}"


def _labels(metric: AnyDefinition) -> str:
    return f"{{{','.join(metric.labels)}}}" if metric.labels else ""


def _decimal(bound: float) -> str:
    return f"{bound:f}".rstrip("0").rstrip(".")
