"""The metrics of models."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Histogram, Metric
from prometheus_client.registry import Collector

from app.following.status import Status
from app.web import metrics_files

# a small model takes some 20 microseconds, a large one seconds
INFERENCE_BUCKETS = (
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1, 2.5, 5, 10,
)  # fmt: skip
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class ModelMetrics:
    """`inference` and `batch_size` are for any thread, the rest for the consumer thread only."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._updates = 0
        self.inference = Histogram(
            "kafka_state_model_inference_seconds",
            "What the model alone took for a request",
            buckets=INFERENCE_BUCKETS,
            registry=registry,
        )
        self.batch_size = Histogram(
            "kafka_state_model_batch_size",
            "The first dimension of a request's first input, where it is dynamic",
            buckets=BATCH_BUCKETS,
            registry=registry,
        )
        self._swaps = Counter(
            "kafka_state_model_swaps", "Models that took the place of another", registry=registry
        )
        self.served = ServedModels()

    def record(self, status: Status) -> None:
        """Take over what has changed."""
        if status.updates == self._updates:
            return
        self._updates = status.updates
        model = status.snapshot.served if status.snapshot else None
        if model is None:
            return
        if self.served.own:
            self._swaps.inc()
        self.served.note(model.name, model.version)


class ServedModels(Collector):
    """Which model each process serves.

    Not a gauge, for one of prometheus_client's keeps every label that it ever had.

    Attributes:
        own: name and version of the one that this process serves.
    """

    def __init__(self) -> None:
        self.own: dict[str, str] | None = None

    def note(self, name: str, version: str) -> None:
        self.own = {"name": name, "version": version}
        folder = metrics_files.folder()
        if folder:
            path = folder / f"model_{os.getpid()}.json"
            written = path.with_suffix(".new")
            written.write_text(json.dumps(self.own))
            written.replace(path)

    def collect(self) -> Iterable[Metric]:
        metric = Metric("kafka_state_model_info", "1 for the model that is served", "gauge")
        for labels in {tuple(served.items()): served for served in self._of_all()}.values():
            metric.add_sample(metric.name, labels, 1)
        yield metric

    def _of_all(self) -> Iterable[dict[str, str]]:
        folder = metrics_files.folder()
        if folder is None:
            return [self.own] if self.own else []
        return [served for path in folder.glob("model_*.json") for served in _read(path)]


def _read(path: Path) -> list[dict[str, str]]:
    with contextlib.suppress(FileNotFoundError):  # of a worker that has just ended
        return [json.loads(path.read_text())]
    return []
