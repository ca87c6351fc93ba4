"""What was served and refused lately."""

from __future__ import annotations

import json
from datetime import datetime, timezone

import pytest

from app.following.history import MOST_CHARACTERS, History
from app.following.status import RefusedMessage
from app.state import Snapshot
from app.web.schemas import HistorySchema

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)


def refused(partition: int, offset: int, topic_id: str = "id") -> RefusedMessage:
    return RefusedMessage(NOW, topic_id, partition, offset, "json", "not JSON")


def test_the_newest_is_the_first_and_no_more_are_kept_than_asked_for():
    history = History(2)
    for offset in range(3):
        history.note_served(Snapshot(str(offset), 1, 0, offset))
        history.note_refused(refused(0, offset))
    assert [served.offset for served in history.served] == [2, 1]
    assert [refused.offset for refused in history.refused] == [2, 1]


@pytest.mark.parametrize(
    ("noted", "newest_first"),
    [
        # as they are met by who looks for the last valid message from the end
        ([(0, 9), (0, 8), (0, 7)], [(0, 9), (0, 8), (0, 7)]),
        ([(0, 9), (0, 8), (1, 5), (1, 4)], [(1, 5), (1, 4), (0, 9), (0, 8)]),
        ([(0, 9), (1, 5), (0, 8)], [(1, 5), (0, 9), (0, 8)]),
        ([(0, 9), (0, 10)], [(0, 10), (0, 9)]),
    ],
)
def test_of_a_partition_the_later_one_is_the_newer_one(noted, newest_first):
    history = History(10)
    for place in noted:
        history.note_refused(refused(*place))
    assert [(it.partition, it.offset) for it in history.refused] == newest_first


def test_what_a_new_topic_of_the_name_refuses_is_newer_than_what_the_old_one_did():
    history = History(10)
    history.note_refused(refused(0, 9, topic_id="old"))
    history.note_refused(refused(0, 1, topic_id="new"))
    assert [it.topic_id for it in history.refused] == ["new", "old"]


def test_nothing_is_kept_where_nothing_is_asked_for():
    history = History(0)
    history.note_served(Snapshot("1"))
    history.note_refused(refused(0, 1))
    assert history.served == history.refused == []


@pytest.mark.parametrize("value", [None, 7, "text", {"a": [1, 2]}])
def test_a_state_is_told_as_it_was(value):
    history = History(1)
    history.note_served(Snapshot(json.dumps(value), 1000, 2, 3, "id"))
    (served,) = HistorySchema().dump(history)["states"]
    assert served.pop("served_at")
    assert served == {
        "state": value,
        "truncated": False,
        "version": "2-3-1000-id",
        "partition": 2,
        "offset": 3,
        "timestamp": "1970-01-01T00:00:01+00:00",
    }


def test_of_a_large_state_the_beginning_is_kept():
    history = History(1)
    text = json.dumps("x" * 2 * MOST_CHARACTERS)
    history.note_served(Snapshot(text))
    (served,) = HistorySchema().dump(history)["states"]
    assert served["truncated"]
    assert served["state"] == text[:MOST_CHARACTERS]
