"""The parts that serving models adds to a service."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from app.following.status import Status
from app.loaders import Loader
from app.model import description, malloc
from app.model.budget import Budget
from app.model.loader import OnnxLoader
from app.model.metrics import ModelMetrics
from app.model.model import Model
from app.model.runs import Runs
from app.serving import Server, do_nothing
from app.settings.model import ModelSettings
from app.state import Snapshot, StateUnknown
from app.web.limits import ConcurrencyLimit
from app.web.metrics import Metrics


@dataclass
class ModelService:
    """Built by `build_model_service`.

    Attributes:
        body_limit: of requests whose body is being received.
        budget: of the memory that requests hold.
        runs: what is computed now.
        body_errors: what reading a body raises where it is not HTTP.
        before_wait: called with the connection of a request that computes for long.
        operations: of the OpenAPI description, by endpoint.
        unauthorized: how each of them describes its 401.
    """

    settings: ModelSettings
    loader: OnnxLoader
    metrics: ModelMetrics
    budget: Budget
    runs: Runs
    body_limit: ConcurrencyLimit = field(default_factory=ConcurrencyLimit)
    body_errors: tuple[type[Exception], ...] = ()
    before_wait: Callable[[socket.socket], None] = do_nothing
    operations: dict[str, dict[str, Any]] = field(default_factory=lambda: description.OPERATIONS)
    unauthorized: dict[str, Any] = field(default_factory=lambda: description.UNAUTHORIZED)

    @staticmethod
    def require_model(snapshot: Snapshot) -> Model:
        """Give the model that is served.

        Raises:
            StateUnknown: there is none yet.
        """
        if snapshot.served is None:
            raise StateUnknown("no model yet: the topic holds no valid message")
        model: Model = snapshot.served
        return model

    def record(self, status: Status) -> None:
        """Take over which model is served; for the consumer thread only."""
        if status.snapshot and status.snapshot.served:
            self.loader.versions.serve(status.snapshot.served)
        self.metrics.record(status.updates, self.loader.versions.loaded)

    def serve_with(self, server: Server) -> None:
        """To be called before the first request."""
        self.body_errors = server.body_errors
        malloc.return_large_blocks()
        self.before_wait = server.before_wait
        if server.threads is not None:
            self.body_limit.set_limit(max(server.threads // 2, 1))
            self.loader.share_machine(server.processes, server.threads)
        self.runs.start(self.loader.runs_at_once(), server.before_wait)


def build_model_service(settings: ModelSettings, loader: Loader, metrics: Metrics) -> ModelService:
    """Put together the parts that serving models adds.

    Args:
        metrics: of the service, which give those of the model too.
    """
    assert isinstance(loader, OnnxLoader)
    own = ModelMetrics(metrics.registry)
    metrics.others.append(own.loaded)
    budget = Budget(settings.max_held_bytes)
    return ModelService(settings, loader, own, budget, Runs(settings.infer_seconds))
