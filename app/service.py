"""What the parts of one application share at run time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flask import Flask, current_app

from app.serving import Server
from app.tracing import UNTRACED, Tracing

if TYPE_CHECKING:
    from app.following.consumer import Consumer
    from app.following.history import History
    from app.model.service import ModelService
    from app.settings import Settings
    from app.state import State
    from app.web.limits import WaitingRequests
    from app.web.metrics import Metrics
    from app.web.stream import StatusEvents

KEY = "kafka_state"


@dataclass(frozen=True)
class Service:
    """One application's parts; their life is `start`, `drain`, `stop`.

    Attributes:
        model: None unless models are served.
    """

    settings: Settings
    state: State
    history: History
    consumer: Consumer
    metrics: Metrics
    waiting: WaitingRequests
    status_events: StatusEvents
    model: ModelService | None = None
    tracing: Tracing = UNTRACED

    def start(self, server: Server | None = None) -> None:
        """Begin to follow, in the process that serves."""
        server = server or Server()
        self.tracing.start()
        self.metrics.begin_process()
        self.waiting.serve_with(server)
        if self.model:
            self.model.serve_with(server)
        self.consumer.start()

    def drain(self) -> None:
        """Answer the requests that wait, and let the thread end; others are still answered."""
        self.consumer.stop(timeout=0)
        self.state.close()

    def stop(self) -> None:
        """End the threads, and wait for a moment for the consumer's, and for what sends traces."""
        if self.model:
            self.model.runs.stop()
        self.consumer.stop()
        self.tracing.stop()


def service_of(app: Flask) -> Service:
    service: Service = app.extensions[KEY]
    return service


def current_service() -> Service:
    """The service of the request that is being answered."""
    return service_of(current_app)
