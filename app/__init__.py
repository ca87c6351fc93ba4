"""A web service whose state is whatever the newest valid message of a Kafka topic says."""

from __future__ import annotations

import atexit
import os

from flask import Flask

from app import logs, problems, protection, views
from app.consumer import Consumer
from app.settings import Settings
from app.state import State

# gunicorn.conf.py says False: there each worker starts the thread after its fork
starts_consumer = True


def create_app(settings: Settings | None = None) -> Flask:
    """Build the application and spawn the thread that keeps its state current.

    Raises:
        SettingsError: a variable of the environment makes no sense.
    """
    settings = settings or Settings.from_environ(os.environ)
    logs.configure(settings.log_level, settings.hide)
    state = State()
    consumer = Consumer(settings, state)

    app = Flask(__name__)
    app.extensions["state"] = state
    app.extensions["consumer"] = consumer
    app.register_blueprint(views.blueprint)
    problems.register(app)
    protection.register(app, settings.api_token)

    if starts_consumer:
        consumer.start()
    atexit.register(consumer.stop)
    return app
