"""The metrics: of HTTP, by each request; of following, by its status."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Iterable, Mapping

import prometheus_client
from flask import Flask, Response, g, request
from prometheus_client import CollectorRegistry, Counter, Histogram, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from app.following.status import Status
from app.web import metric_definitions as definitions
from app.web import metrics_files
from app.web.metric_definitions import GaugeDefinition

prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # per process

METHODS = {"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"}
# in the WSGI environment: when a request began that came to Flask later
BEGAN = "kafka_state.began"

# an age grows by itself, so that it is computed when it is collected
AGES = {
    definitions.LAST_MESSAGE_TIMESTAMP.name: definitions.AGE,
    definitions.CONFIRMED_TIMESTAMP.name: definitions.STALE,
}
# gauges have no way to say that there is no value; these are left out when they are collected
NO_HIGHEST, NO_LOWEST = -math.inf, math.inf


class Metrics:
    """Counts what happens in this process, and gives the sum over all workers.

    Counters and histograms add up over the workers, also those that have ended; of gauges it
    gives the worst of the workers that live. That takes `PROMETHEUS_MULTIPROC_DIR`, which
    gunicorn.conf.py sets before this module is imported; without it there is one process.

    Attributes:
        registry: of what is measured in this process.
        others: collectors that cover all processes by themselves.
    """

    def __init__(self) -> None:
        folder = metrics_files.folder()
        if folder:
            metrics_files.make(folder)
        self.registry = registry = CollectorRegistry()
        self.others: list[Collector] = []
        self._recorded = Status("", "")
        self._updates = definitions.UPDATES.collector(registry)
        self._invalid = definitions.INVALID_MESSAGES.collector(registry)
        self._failed_loads = definitions.FAILED_LOADS.collector(registry)
        self._skipped = definitions.SKIPPED_MESSAGES.collector(registry)
        self._partition_errors = definitions.PARTITION_ERRORS.collector(registry)
        self._fetches = definitions.FETCHES.collector(registry)
        self._reconnects = definitions.RECONNECTS.collector(registry)
        self._delay = definitions.UPDATE_DELAY.collector(registry)
        self._lag = definitions.LAG.collector(registry)
        with metrics_files.without_readers():
            self._connected = definitions.CONNECTED.collector(registry)
            self._timestamp = definitions.LAST_MESSAGE_TIMESTAMP.collector(registry)
            self._confirmed = definitions.CONFIRMED_TIMESTAMP.collector(registry)
            self._clear_gauges()
        self._durations = definitions.HTTP_DURATION.collector(registry)

    def begin_process(self) -> None:
        """To be called after a fork, before anything is measured in the new process: otherwise its
        gauges begin with 0, which would be an outage."""
        with metrics_files.without_readers():
            self._clear_gauges()

    def _clear_gauges(self) -> None:
        self._timestamp.set(NO_LOWEST)
        self._confirmed.set(NO_LOWEST)
        self._connected.set(NO_LOWEST)

    def record(self, status: Status) -> None:
        """Take over what has changed; for the consumer thread only."""
        last, self._recorded = self._recorded, status
        if status.updates != last.updates:
            self._updates.inc(status.updates - last.updates)
            timestamp = status.snapshot.timestamp if status.snapshot else None
            self._timestamp.set(
                NO_LOWEST if timestamp is None or timestamp < 0 else timestamp / 1000
            )
            if status.update_delay is not None:
                self._delay.observe(status.update_delay)
        if last.is_from_log:
            _count_by_reason(self._invalid, status.invalid_messages, last.invalid_messages)
        _count_by_reason(self._partition_errors, status.partition_errors, last.partition_errors)
        self._fetches.inc(status.fetches - last.fetches)
        _count_by_reason(self._failed_loads, status.failed_loads, last.failed_loads)
        self._skipped.inc(status.skipped_messages - last.skipped_messages)
        if status.connections > max(last.connections, 1):
            self._reconnects.inc()
        if _confirmed(status) != _confirmed(last):
            self._confirmed.set(time.time() - (time.monotonic() - _confirmed(status)))
        if _connected(status) != _connected(last):
            self._connected.set(_connected(status))
        if status.partitions != last.partitions:
            for partition in last.partitions.keys() - status.partitions:
                self._lag.labels(partition).set(NO_HIGHEST)
            for partition, progress in status.partitions.items():
                self._lag.labels(partition).set(
                    NO_HIGHEST if progress.lag is None else progress.lag
                )

    @functools.cache  # noqa: B019  # there is one object for as long as the process
    def _duration(self, *labels: str | int) -> Histogram:
        return self._durations.labels(*labels)

    def register(self, app: Flask) -> None:
        """Count this application's requests."""
        app.before_request(_note_start)
        app.after_request(self._count)

    def _count(self, response: Response) -> Response:
        rule, method = request.url_rule, request.method
        self.count(
            rule.rule if rule else "unmatched",
            method if method in METHODS else "other",
            response.status_code,
            time.perf_counter() - g.start,
        )
        return response

    def count(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request; for any thread."""
        self._duration(route, method, status).observe(seconds)

    def expose(self, accept: str) -> tuple[bytes, str]:
        """Give all metrics, of all workers, and their content type.

        Args:
            accept: the header, for Prometheus asks for one of its formats.
        """
        encode, content_type = choose_encoder(accept)
        return encode(_Exposed(self.registry, self.others)), content_type


def _connected(status: Status) -> float:
    """1 or 0; no value before the first try, for a reload is no outage."""
    if status.connections == status.failures == 0:
        return NO_LOWEST
    return float(status.connected_since is not None)


def _confirmed(status: Status) -> float:
    return status.current_as_of if status.connections or status.cached else NO_LOWEST


def _count_by_reason(counter: Counter, now: Mapping[str, int], last: Mapping[str, int]) -> None:
    if now != last:
        for reason, count in now.items():
            counter.labels(reason).inc(count - last.get(reason, 0))


def _note_start() -> None:
    g.start = request.environ.get(BEGAN, time.perf_counter())


class _Exposed(Collector):
    def __init__(self, own: CollectorRegistry, others: Iterable[Collector]) -> None:
        self._own = own
        self._others = others

    def collect(self) -> Iterable[Metric]:
        folder = metrics_files.folder()
        for metric in metrics_files.merged(folder) if folder else self._own.collect():
            metric.samples = [sample for sample in metric.samples if math.isfinite(sample.value)]
            yield metric
            if metric.name in AGES:
                yield _age(metric, AGES[metric.name])
            if metric.name == definitions.HTTP_DURATION.name:
                yield _requests(metric)
        for other in self._others:
            yield from other.collect()


def _requests(durations: Metric) -> Metric:
    """Give the number of requests, which the histogram counts anyway."""
    requests = definitions.HTTP_REQUESTS.family()
    for sample in durations.samples:
        if sample.name == f"{definitions.HTTP_DURATION.name}_count":
            requests.add_sample(definitions.HTTP_REQUESTS.name, sample.labels, sample.value)
    return requests


def _age(timestamps: Metric, definition: GaugeDefinition) -> Metric:
    age = definition.family()
    for sample in timestamps.samples:
        age.add_sample(definition.name, {}, time.time() - sample.value)
    return age
