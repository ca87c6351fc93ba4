from __future__ import annotations

from kafka.errors import KafkaError

from app.following.event_log import EventLog
from app.following.reporter import Reporter
from app.following.status import Status
from app.settings import Settings


def test_a_report_that_fails_is_told_and_keeps_neither_others_nor_the_status_from_going_on(caplog):
    """Such as a metric whose folder was removed."""

    def fail(status: Status) -> None:
        raise FileNotFoundError("metrics/model_7.json")

    reported: list[Status] = []
    reporter = Reporter(
        Settings(topic="t"),
        Status("t", "client"),
        [fail, reported.append],
        EventLog("t"),
        on_failure=str,
    )
    reporter.update(updates=1)
    reporter.failed(KafkaError("away"))
    assert (reporter.status.updates, reporter.status.failures) == (1, 1)
    assert [(status.updates, status.failures) for status in reported] == [(1, 0), (1, 1)]
    assert "metrics/model_7.json" in caplog.text
