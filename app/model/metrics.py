"""The metrics of models."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Histogram, Metric
from prometheus_client.registry import Collector

from app.model.model import Model
from app.web import metrics_files

# a small model takes some 20 microseconds, a large one seconds
INFERENCE_BUCKETS = (
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1, 2.5, 5, 10,
)  # fmt: skip
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

Labels = dict[str, str]


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
        self.loaded = LoadedModels()

    def record(self, updates: int, loaded: Sequence[Model]) -> None:
        """Take over what has changed.

        Args:
            updates: how many states were served.
            loaded: the model that is served, if there is one, and then those that are kept.
        """
        if updates != self._updates and self.loaded.own:
            self._swaps.inc()
        self._updates = updates
        self.loaded.note(loaded)


class LoadedModels(Collector):
    """Which model each process serves, and which it keeps.

    No gauges, for one of prometheus_client's keeps every label that it ever had.

    Attributes:
        own: name and version of those of this process, the one that is served first.
    """

    def __init__(self) -> None:
        self.own: list[Labels] = []

    def note(self, loaded: Sequence[Model]) -> None:
        own = [{"name": model.name, "version": model.version} for model in loaded]
        if own == self.own:
            return
        folder = metrics_files.folder()
        if folder:
            path = folder / f"models_{os.getpid()}.json"
            written = path.with_suffix(".new")
            written.write_text(json.dumps(own))
            written.replace(path)
        self.own = own

    def collect(self) -> Iterable[Metric]:
        of_all = list(self._of_all())
        served = Metric("kafka_state_model_info", "1 for the model that is served", "gauge")
        _add(served, [labels for loaded in of_all for labels in loaded[:1]])
        yield served
        kept = Metric(
            "kafka_state_model_kept_info", "1 for each model served before that is kept", "gauge"
        )
        _add(kept, [labels for loaded in of_all for labels in loaded[1:]])
        yield kept

    def _of_all(self) -> Iterable[list[Labels]]:
        folder = metrics_files.folder()
        if folder is None:
            return [self.own]
        return map(_read, folder.glob("models_*.json"))


def _add(metric: Metric, of_all: Iterable[Labels]) -> None:
    for labels in {tuple(labels.items()): labels for labels in of_all}.values():
        metric.add_sample(metric.name, labels, 1)


def _read(path: Path) -> list[Labels]:
    with contextlib.suppress(FileNotFoundError):  # of a worker that has just ended
        loaded: list[Labels] = json.loads(path.read_text())
        return loaded
    return []
