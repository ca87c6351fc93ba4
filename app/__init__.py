"""A web service whose state is whatever the newest valid message of a Kafka topic says."""

from __future__ import annotations

import atexit
import os

from flask import Flask

from app import description, logs, problems, protection, views
from app.consumer import Consumer
from app.metrics import Metrics
from app.settings import Settings
from app.state import State
from app.waiting import WaitingRoom

# gunicorn.conf.py says False: there each worker starts the thread after its fork
starts_consumer = True


def create_app(settings: Settings | None = None) -> Flask:
    """Build the application and spawn the thread that keeps its state current.

    Raises:
        SettingsError: a variable of the environment makes no sense.
    """
    settings = settings or Settings.from_environ(os.environ)
    logs.configure(settings)
    state = State()
    metrics = Metrics()
    consumer = Consumer(settings, state, metrics.record)

    app = Flask(__name__)
    app.extensions["state"] = state
    app.extensions["consumer"] = consumer
    app.extensions["waiting_room"] = WaitingRoom(state, settings.max_waiting)
    app.extensions["metrics"] = metrics
    app.extensions["wants_token"] = settings.api_token is not None
    app.register_blueprint(views.blueprint)
    app.register_blueprint(description.blueprint)
    metrics.register(app)
    problems.register(app)
    protection.register(app, settings.api_token)

    if starts_consumer:
        consumer.start()
    atexit.register(consumer.stop)
    return app
