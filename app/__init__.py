"""A web service whose state is whatever the newest valid message of a Kafka topic says."""

from __future__ import annotations

import atexit
import logging
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from flask import Flask

    from app.following.status import Status
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
    from app.following.consumer import Consumer
    from app.following.history import History
    from app.loaders import find_loader
    from app.settings import Settings, unknown_names
    from app.state import State
    from app.web import auth, description, errors, views
    from app.web.limits import WaitingRoom
    from app.web.metrics import Metrics
    from app.web.stream import StatusEvents

    settings = settings or Settings.from_environ(os.environ)
    logs.configure(settings)
    state = State()
    metrics = Metrics()
    loader = find_loader(settings)

    app = Flask(__name__, static_folder="web/static", template_folder="web/templates")
    reports: list[Callable[[Status], None]] = [metrics.record]
    if settings.model:
        # what it needs is there in this case only
        from app.model import views as model_views

        reports.append(model_views.register(app, settings.model, metrics))
    history = History(settings.history)
    consumer = Consumer(settings, state, history, reports, loader)
    app.extensions["settings"] = settings
    app.extensions["state"] = state
    app.extensions["history"] = history
    app.extensions["loader"] = loader
    app.extensions["consumer"] = consumer
    app.extensions["waiting_room"] = WaitingRoom(state, settings.max_waiting)
    app.extensions["status_events"] = StatusEvents(lambda: consumer.status)
    app.extensions["metrics"] = metrics
    app.extensions["wants_token"] = settings.api_token is not None
    app.register_blueprint(views.blueprint)
    app.register_blueprint(description.blueprint)
    metrics.register(app)
    errors.register(app)
    auth.register(app, settings.api_token)

    if starts_consumer:
        for line in unknown_names(os.environ):
            log.warning(line)
        consumer.start()
    atexit.register(consumer.stop)
    return app
