"""The Grafana dashboard, written from the list of metrics: a panel for each, in rows by section.

The fields are those of Grafana's dashboard schema; what is left out has the default there.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from app.web.metric_definitions import (
    FETCHES,
    METRICS,
    AnyDefinition,
    CounterDefinition,
    HistogramDefinition,
    InfoDefinition,
    Section,
)

# of Grafana 11.0; later ones bring it up to theirs when it is imported
SCHEMA_VERSION = 39

# Grafana's grid is 24 units wide
WIDTH, HEIGHT, COLUMNS = 8, 8, 3

# Grafana's names of units; all that is counted is a plain number
UNITS = {"seconds": "s", "Unix time": "dateTimeFromNow", "truth": "bool"}
COUNT, RATE = "short", "cps"

QUANTILES = (0.5, 0.99)
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
CHOSEN = 'job=~"$job",instance=~"$instance"'
# every instance has it, from the start on
EVERYWHERE = FETCHES.name


def dashboard() -> str:
    return json.dumps(_dashboard(), indent=2) + "\n"


def _dashboard() -> dict[str, Any]:
    return {
        "uid": "kafka-state",
        "title": "kafka-state",
        "tags": ["kafka-state"],
        "editable": False,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "schemaVersion": SCHEMA_VERSION,
        "annotations": {"list": []},
        "templating": {"list": list(_variables())},
        "panels": list(_panels()),
    }


def _variables() -> Iterator[dict[str, Any]]:
    yield {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
    }
    of_job = f'{EVERYWHERE}{{job=~"$job"}}'
    yield _values_of("job", EVERYWHERE)
    yield _values_of("instance", of_job)


def _values_of(label: str, series: str) -> dict[str, Any]:
    return {
        "name": label,
        "label": label.capitalize(),
        "type": "query",
        "datasource": DATASOURCE,
        "query": f"label_values({series}, {label})",
        "multi": True,
        "includeAll": True,
        "allValue": ".+",
        "current": {"text": "All", "value": "$__all"},
        "refresh": 2,  # also when the time range changes
        "sort": 1,
    }


def _panels() -> Iterator[dict[str, Any]]:
    number, y = 0, 0
    for section, of_section in groupby(METRICS, lambda metric: metric.section):
        number += 1
        yield _row(number, section, y)
        y += 1
        panels = [_panel(metric) for metric in of_section]
        for place, panel in enumerate(panels):
            number += 1
            down, along = divmod(place, COLUMNS)
            at = {"x": along * WIDTH, "y": y + down * HEIGHT, "w": WIDTH, "h": HEIGHT}
            yield {"id": number, "gridPos": at, **panel}
        y += math.ceil(len(panels) / COLUMNS) * HEIGHT


def _row(number: int, section: Section, y: int) -> dict[str, Any]:
    at = {"x": 0, "y": y, "w": COLUMNS * WIDTH, "h": 1}
    return {
        "id": number,
        "type": "row",
        "title": section,
        "collapsed": False,
        "gridPos": at,
        "panels": [],
    }


def _panel(metric: AnyDefinition) -> dict[str, Any]:
    is_moment = metric.unit == "Unix time"
    added = " Here: how many instances say so." if isinstance(metric, InfoDefinition) else ""
    return {
        "type": "stat" if is_moment else "timeseries",
        "title": title(metric),
        "description": f"{metric.meaning}{added} ({metric.name})",
        "datasource": DATASOURCE,
        "fieldConfig": {"defaults": _field(metric), "overrides": []},
        "targets": [
            {
                "refId": chr(ord("A") + place),
                "datasource": DATASOURCE,
                "expr": query,
                "legendFormat": legend,
                "instant": is_moment,
                "range": not is_moment,
            }
            for place, (query, legend) in enumerate(queries(metric))
        ],
    }


def title(metric: AnyDefinition) -> str:
    """Make of its name what a person reads: `kafka_state_update_delay_seconds` is Update delay."""
    name = metric.name.removeprefix("kafka_state_").removesuffix("_total").removesuffix("_seconds")
    words = name.replace("http_", "HTTP_").replace("_", " ")
    return words[0].upper() + words[1:]


def _field(metric: AnyDefinition) -> dict[str, Any]:
    count = RATE if isinstance(metric, CounterDefinition) else COUNT
    field: dict[str, Any] = {"unit": UNITS.get(metric.unit, count)}
    if metric.unit != "Unix time":
        field["min"] = 0
    return field


def queries(metric: AnyDefinition) -> Iterator[tuple[str, str]]:
    """Give each query of a metric's panel, and the legend of its series."""
    of_chosen = f"{metric.name}{{{CHOSEN}}}"
    # what has labels of its own is added up over the instances, or there would be too many lines
    labels = metric.labels or ("instance",)
    if isinstance(metric, CounterDefinition):
        by = ", ".join(labels)
        yield f"sum by ({by}) (rate({of_chosen}[$__rate_interval]))", _legend(*labels)
    elif isinstance(metric, HistogramDefinition):
        # by the label that tells most
        label = labels[0]
        rate = f"rate({metric.name}_bucket{{{CHOSEN}}}[$__rate_interval])"
        for quantile in QUANTILES:
            query = f"histogram_quantile({quantile}, sum by (le, {label}) ({rate}))"
            yield query, f"{_legend(label)} p{quantile * 100:g}"
    elif isinstance(metric, InfoDefinition):
        yield f"sum by ({', '.join(labels)}) ({of_chosen})", _legend(*labels)
    else:
        # of the start of the epoch Grafana wants milliseconds
        factor = " * 1000" if metric.unit == "Unix time" else ""
        yield f"{of_chosen}{factor}", _legend("instance", *metric.labels)


def _legend(*labels: str) -> str:
    return " ".join(f"{{{{{label}}}}}" for label in labels)
