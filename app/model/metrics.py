"""What Prometheus is told of models."""

from __future__ import annotations

import math

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from app.status import Status

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
        self._served: tuple[str, str] | None = None
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
        self._info = Gauge(
            "kafka_state_model_info",
            "1 for the model that is served",
            ["name", "version"],
            multiprocess_mode="livemax",
            registry=registry,
        )

    def record(self, status: Status) -> None:
        """Take over what has changed."""
        if status.updates == self._updates:
            return
        self._updates = status.updates
        model = status.snapshot.served if status.snapshot else None
        if model is None:
            return
        if self._served:
            self._swaps.inc()
            self._info.labels(*self._served).set(-math.inf)  # it is left out then
        self._served = (model.name, model.version)
        self._info.labels(*self._served).set(1)
