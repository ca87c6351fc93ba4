"""The parts of one application, put together."""

from __future__ import annotations

import os

from app.following.consumer import Consumer
from app.following.history import History
from app.following.state_file import find_state_file
from app.loaders import find_loader
from app.service import Service
from app.settings import Settings
from app.state import State
from app.topic_log import check_settings
from app.tracing import find_tracing
from app.web.limits import WaitingRequests
from app.web.metrics import Metrics
from app.web.stream import StatusEvents


def build_service(settings: Settings) -> Service:
    """Build the parts of an application, and start nothing yet.

    Raises:
        SettingsError: there is no such loader, models, or the state, cannot be kept, or the Kafka
            client cannot do with these settings.
        Exception: whatever importing somebody else's loader, or token provider, raises.
    """
    check_settings(settings)
    state, history, metrics = State(), History(settings.history), Metrics()
    loader = find_loader(settings)
    reports = [metrics.record]
    model = None
    if settings.model:
        # its packages come with the extra `onnx` only
        from app.model.service import build_model_service

        model = build_model_service(settings.model, loader, metrics)
        reports.append(model.record)
    tracing = find_tracing(os.environ)
    consumer = Consumer(
        settings, state, history, reports, loader, find_state_file(settings), tracing
    )
    return Service(
        settings=settings,
        state=state,
        history=history,
        consumer=consumer,
        metrics=metrics,
        waiting=WaitingRequests(state, settings.max_waiting),
        status_events=StatusEvents(lambda: consumer.status),
        model=model,
        tracing=tracing,
    )
