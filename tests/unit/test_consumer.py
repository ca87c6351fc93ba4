from __future__ import annotations

import itertools
import logging

from app.consumer import Consumer
from app.history import History
from app.logs import Throttle
from app.pauses import pause_seconds
from app.settings import Settings
from app.state import State
from app.topic_log import TopicLogError
from tests.waiting import eventually


def test_pauses_grow_to_a_bound():
    pauses = [pause_seconds(failures, 2.0, chance=lambda: 1.0) for failures in range(2000)]
    assert pauses == sorted(pauses)
    assert pauses[0] < 1
    assert pauses[-1] == 2.0


def test_pauses_of_many_instances_differ_by_up_to_a_half():
    drawn = iter([0.0, 0.5, 1.0])
    assert [pause_seconds(9, 2.0, chance=lambda: next(drawn)) for _ in range(3)] == [1.0, 1.5, 2.0]


def test_says_why_it_does_not_follow_though_it_said_something_else_a_moment_ago(
    monkeypatch, caplog
):
    caplog.set_level(logging.WARNING)
    reasons = itertools.chain(["first", "second"], itertools.repeat("third"))

    def cannot_open(*args: object, **options: object) -> None:
        raise TopicLogError(next(reasons))

    monkeypatch.setattr("app.consumer.TopicLog", cannot_open)
    consumer = Consumer(Settings(topic="t"), State(), History(length=1))
    consumer._journal._failure = Throttle(logging.getLogger("app").warning, limit=1, period=0.5)
    consumer.start()
    try:
        eventually(lambda: any("third" in line for line in caplog.messages))
    finally:
        consumer.stop(10)
    assert caplog.messages[0] == "Not following t: first"
