"""The names of the list of metrics, as they are met in rules, pages and answers."""

from __future__ import annotations

from app.web.metric_definitions import METRICS, HistogramDefinition

# of samples
SERIES = {
    f"{metric.name}{suffix}"
    for metric in METRICS
    for suffix in (
        ("_bucket", "_sum", "_count") if isinstance(metric, HistogramDefinition) else ("",)
    )
}
