"""What the benchmark makes of what it saw."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bench.flood import Sent
from bench.models import ROWS
from bench.swaps import is_right

# (when, which state) was acknowledged
SENT = Sent(first=1, last=30, seconds=3.0, acknowledged=[(1.0, 10), (2.0, 20), (3.0, 30)])


@pytest.mark.parametrize(
    ("at", "served", "staleness"),
    [
        (0.5, 0, 0.0),  # nothing is acknowledged yet
        (1.5, 0, 0.5),
        (2.5, 0, 1.5),  # the oldest that is missing counts
        (2.5, 10, 0.5),
        (2.5, 20, 0.0),
        (9.0, 30, 0.0),
    ],
)
def test_staleness_is_for_how_long_something_newer_has_been_acknowledged(at, served, staleness):
    assert SENT.staleness(at, served) == staleness


def test_the_rate_is_that_of_all_messages_until_the_last_acknowledgement():
    assert SENT.rate == 10


@pytest.mark.parametrize(("added", "expected"), [(7, True), (6, False)])
def test_an_answer_is_right_if_it_is_what_the_version_that_it_names_computes(added, expected):
    head = json.dumps({"model_name": "m", "model_version": "7"}).encode()
    assert is_right(head + (ROWS + np.float32(added)).tobytes(), len(head)) is expected
