"""How much memory inference requests hold at once."""

from __future__ import annotations

import threading

import pytest

from app.model.budget import GRANT_BYTES, Budget, Holding
from app.web.limits import LimitExceeded

MOST = 10 * GRANT_BYTES


def test_requests_hold_together_as_much_as_there_is():
    budget = Budget(MOST)
    first, second = Holding(budget), Holding(budget)
    first.take(MOST // 2)
    second.take(MOST // 2)
    with pytest.raises(LimitExceeded, match=f"accepted are MODEL_MAX_HELD_BYTES, {MOST}"):
        second.take(1)


def test_what_is_given_back_can_be_taken_again():
    budget = Budget(MOST)
    first, second = Holding(budget), Holding(budget)
    first.take(MOST)
    with pytest.raises(LimitExceeded):
        second.take(1)
    first.close()
    second.close()
    assert budget.held == 0
    Holding(budget).take(MOST)


def test_one_that_needs_more_than_there_is_gets_it_while_nobody_else_holds_any():
    budget = Budget(MOST)
    small, large = Holding(budget), Holding(budget)
    small.take(1)
    large.take(MOST // 2)
    with pytest.raises(LimitExceeded):
        large.take(MOST)
    small.close()
    large.take(MOST)
    assert budget.held > MOST
    with pytest.raises(LimitExceeded):
        Holding(budget).take(1)


def test_a_small_one_takes_its_share_once():
    budget = Budget(MOST)
    small = Holding(budget)
    for _ in range(10):
        small.take(10)
    assert budget.held == GRANT_BYTES


def test_never_more_is_held_than_there_is_whoever_takes_it():
    budget = Budget(MOST)
    most_seen = 0

    def ask() -> None:
        nonlocal most_seen
        for size in range(1, 200):
            holding = Holding(budget)
            try:
                holding.take(size * GRANT_BYTES % MOST)
                most_seen = max(most_seen, budget.held)
            except LimitExceeded:
                pass
            finally:
                holding.close()

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert 0 < most_seen <= MOST
    assert budget.held == 0


def test_what_is_not_needed_any_more_is_given_back_and_the_rest_once():
    budget = Budget(MOST)
    holding = Holding(budget)
    holding.take(MOST)
    holding.keep(2 * GRANT_BYTES)
    assert budget.held == 2 * GRANT_BYTES
    holding.take(GRANT_BYTES)
    assert budget.held == 3 * GRANT_BYTES
    holding.close()
    holding.close()
    assert budget.held == 0
