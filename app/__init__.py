"""A web service whose state is whatever the newest valid message of a Kafka topic says."""

from __future__ import annotations

import atexit
import logging
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask

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
    from app.assembly import build_service
    from app.service import KEY
    from app.settings import Settings, unknown_names
    from app.tracing import why_untraced
    from app.web import auth, description, errors, views
    from app.web.repeated_reads import RepeatedReads
    from app.web.routes import route_finder

    settings = settings or Settings.from_environ(os.environ)
    logs.configure(settings)

    app = Flask(__name__, static_folder="web/static", template_folder="web/templates")
    service = app.extensions[KEY] = build_service(settings)

    app.register_blueprint(views.blueprint)
    app.register_blueprint(description.blueprint)
    if service.model:
        from app.model import views as model_views
        from app.model.inference import Inferences

        app.register_blueprint(model_views.blueprint)
        app.wsgi_app = Inferences(app.wsgi_app, service)  # type: ignore[method-assign]
    service.metrics.register(app)
    errors.register(app)
    auth.register(app, settings.api_tokens)
    app.wsgi_app = RepeatedReads(app.wsgi_app, service)  # type: ignore[method-assign]
    app.wsgi_app = service.tracing.requests_to(  # type: ignore[assignment,method-assign]
        app.wsgi_app, route_finder(app), views.PROBES
    )

    if starts_consumer:
        for line in unknown_names(os.environ):
            log.warning(line)
        if untraced := why_untraced(os.environ):
            log.warning(untraced)
        service.start()
    atexit.register(service.stop)
    return app
