"""Whether a worker has more connections than its share."""

from __future__ import annotations

import pytest

from app.server.shares import MOST_WORKERS, Shares, shared_memory


@pytest.mark.parametrize(
    ("own", "others", "is_large"),
    [
        (1000, [], False),
        (2, [0], False),
        (3, [0], True),
        (10, [8], False),
        (13, [8], True),
        (13, [8, 100], True),
        (1000, [900, 950], False),
    ],
)
def test_it_is_large_where_another_has_so_many_fewer(own, others, is_large):
    shares = Shares(shared_memory())
    for age, count in enumerate(others, start=1):
        shares.of(age).note(count)
    share = shares.of(17)
    share.note(own)
    assert share.is_large() is is_large


def test_one_that_takes_no_connections_any_more_is_not_waited_for():
    shares = Shares(shared_memory())
    own, other = shares.of(1), shares.of(2)
    own.note(10)
    other.note(0)
    assert own.is_large()
    other.end()
    assert not own.is_large()


def test_one_that_starts_is_waited_for_until_it_takes_connections_or_ends():
    shares = Shares(shared_memory())
    own, serves, ends = shares.of(1), shares.of(2), shares.of(3)
    own.begin()
    assert not own.is_another_starting()
    serves.begin()
    ends.begin()
    own.note(10)
    assert not own.is_large()
    serves.note(0)
    assert own.is_another_starting()
    ends.end()
    assert not own.is_another_starting()


def test_there_may_be_any_number_of_workers_one_after_the_other():
    shares = Shares(shared_memory())
    shares.of(MOST_WORKERS + 1).note(0)
    own = shares.of(2 * MOST_WORKERS)
    own.note(10)
    assert own.is_large()


def test_connections_of_one_that_has_ended_are_not_noted_any_more():
    shares = Shares(shared_memory())
    own, other = shares.of(1), shares.of(2)
    own.note(10)
    other.end()
    other.note(0)
    assert not own.is_large()
