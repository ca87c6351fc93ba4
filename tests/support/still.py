"""A service whose thread never starts: what is answered, given a state and a status."""

from __future__ import annotations

from flask import Flask

from app.following.history import History
from app.following.status import Status
from app.service import KEY, Service
from app.settings import Settings
from app.state import State
from app.web.limits import WaitingRequests
from app.web.metrics import Metrics
from app.web.stream import StatusEvents


class StillConsumer:
    alive = True
    silent_seconds = 0.0

    def __init__(self) -> None:
        self.status = Status("topic", "client")

    def is_alive(self) -> bool:
        return self.alive

    def seconds_since_loop(self) -> float:
        return self.silent_seconds


def still_app(state: State, waiting: int | None = None) -> Flask:
    """An application without views.

    Args:
        waiting: how many requests may wait at once.
    """
    app, consumer = Flask("app"), StillConsumer()
    app.extensions[KEY] = Service(
        settings=Settings(topic="topic", history=2),
        state=state,
        history=History(2),
        consumer=consumer,  # type: ignore[arg-type]  # as far as views ask it
        metrics=Metrics(),
        waiting=WaitingRequests(state, limit=waiting),
        status_events=StatusEvents(lambda: consumer.status),
    )
    return app
