from __future__ import annotations

import pytest

from app.web.conditions import parse_wait


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        ("wait=10", 10),
        ("WAIT = 10", 10),
        ('wait="10"', 10),
        ("respond-async, wait=10", 10),
        ("wait=10; because=patience, return=minimal", 10),
        ("wait=10, wait=20", 10),
        ("wait=soon, wait=10", 10),
        ("wait=0", 0),
        ("wait=46", 45),
        ("wait=" + "9" * 1000, 45),
    ],
)
def test_reads_how_long_a_client_would_wait(prefer, seconds):
    assert parse_wait(prefer) == seconds


@pytest.mark.parametrize(
    "prefer",
    ["", "wait", "wait=", "wait=-1", "wait=1.5", "wait=soon", "wait=\u0661", "await=3", '"'],
)
def test_ignores_a_preference_that_makes_no_sense(prefer):
    assert parse_wait(prefer) is None
