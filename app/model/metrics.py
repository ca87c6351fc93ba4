"""The metrics of models."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.registry import Collector

from app.model.model import Model
from app.web import metric_definitions as definitions
from app.web import metrics_files
from app.web.metric_definitions import InfoDefinition

Labels = dict[str, str]


class ModelMetrics:
    """`inference` and `batch_size` are for any thread, the rest for the consumer thread only."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._updates = 0
        self.inference = definitions.MODEL_INFERENCE.collector(registry)
        self.batch_size = definitions.MODEL_BATCH_SIZE.collector(registry)
        self._swaps = definitions.MODEL_SWAPS.collector(registry)
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
        yield _info(definitions.MODEL_INFO, [one for loaded in of_all for one in loaded[:1]])
        yield _info(definitions.MODEL_KEPT_INFO, [one for loaded in of_all for one in loaded[1:]])

    def _of_all(self) -> Iterable[list[Labels]]:
        folder = metrics_files.folder()
        if folder is None:
            return [self.own]
        return map(_read, folder.glob("models_*.json"))


def _info(definition: InfoDefinition, of_all: Iterable[Labels]) -> Metric:
    metric = definition.family()
    for labels in {tuple(labels.items()): labels for labels in of_all}.values():
        metric.add_sample(definition.name, labels, 1)
    return metric


def _read(path: Path) -> list[Labels]:
    with contextlib.suppress(FileNotFoundError):  # of a worker that has just ended
        loaded: list[Labels] = json.loads(path.read_text())
        return loaded
    return []
