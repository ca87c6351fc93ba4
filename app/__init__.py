"""A web service whose state is whatever the newest valid message of a Kafka topic says."""

from __future__ import annotations

import atexit
import logging
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask

    from app.service import Service
    from app.settings import Settings

log = logging.getLogger(__name__)


def create_app(settings: Settings | None = None, *, starts_consumer: bool = True) -> Flask:
    """Build the application and spawn the thread that keeps its state current.

    Args:
        starts_consumer: False where this process forks those that serve, and each starts its own.

    Raises:
        SettingsError: a variable of the environment makes no sense.
    """
    # here, for a command or a model's first load imports a part of this package and not all of it
    from flask import Flask

    from app import logs
    from app.service import KEY
    from app.settings import Settings, unknown_names
    from app.web import auth, description, errors, views

    settings = settings or Settings.from_environ(os.environ)
    logs.configure(settings)

    app = Flask(__name__, static_folder="web/static", template_folder="web/templates")
    service = app.extensions[KEY] = _build(settings)

    app.register_blueprint(views.blueprint)
    app.register_blueprint(description.blueprint)
    if service.model:
        from app.model import views as model_views

        app.register_blueprint(model_views.blueprint)
    service.metrics.register(app)
    errors.register(app)
    auth.register(app, settings.api_token)

    if starts_consumer:
        for line in unknown_names(os.environ):
            log.warning(line)
        service.start()
    atexit.register(service.stop)
    return app


def _build(settings: Settings) -> Service:
    from app.following.consumer import Consumer
    from app.following.history import History
    from app.loaders import find_loader
    from app.service import Service
    from app.state import State
    from app.web.limits import WaitingRequests
    from app.web.metrics import Metrics
    from app.web.stream import StatusEvents

    state, history, metrics = State(), History(settings.history), Metrics()
    loader = find_loader(settings)
    reports = [metrics.record]
    model = None
    if settings.model:
        # what it needs is installed in this case only
        from app.model.service import build_model_service

        model = build_model_service(settings.model, loader, metrics)
        reports.append(model.metrics.record)
    consumer = Consumer(settings, state, history, reports, loader)
    return Service(
        settings=settings,
        state=state,
        history=history,
        consumer=consumer,
        metrics=metrics,
        waiting=WaitingRequests(state, settings.max_waiting),
        status_events=StatusEvents(lambda: consumer.status),
        model=model,
    )
