"""Secrets are taken out of what others have written."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from app.settings.redaction import MOST_PASSING, REDACTED, Redactor

SECRET = "s3cret of=alice; 100%'\\"


@pytest.fixture
def redactor() -> Redactor:
    redactor = Redactor()
    redactor.add(SECRET)
    return redactor


@pytest.mark.parametrize(
    "written", [SECRET, repr(SECRET)[1:-1], repr(repr(SECRET))[2:-2], quote(SECRET)]
)
def test_however_it_is_written(redactor, written):
    assert redactor.redact(f"<{written}>") == f"<{REDACTED}>"


def test_one_that_is_the_beginning_of_another_leaves_nothing_of_it(redactor):
    redactor.add(SECRET + "-and-more")
    assert redactor.redact(SECRET + "-and-more") == REDACTED


def test_those_that_were_read_before_are_taken_out_too(redactor):
    redactor.add("the next one")
    assert redactor.redact(f"{SECRET}, the next one") == f"{REDACTED}, {REDACTED}"


def test_a_short_one_tells_nothing_of_itself(redactor):
    redactor.add("state")
    assert redactor.redact("the state") == "the state"


def test_a_secret_that_changes_every_minute_does_not_fill_the_memory(redactor):
    for number in range(MOST_PASSING + 1):
        redactor.add(f"a long token {number:04}", is_passing=True)
    assert redactor.redact("a long token 0000") == "a long token 0000"
    assert redactor.redact("a long token 0001") == REDACTED
    assert redactor.redact(SECRET) == REDACTED
