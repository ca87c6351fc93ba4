from __future__ import annotations

import json
import math
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.message import parse_message
from app.message_errors import InvalidMessage
from app.strict_json import DEEPEST_NESTING, canonical_json
from tests.support.json_values import JSON_VALUES


def state_json(value: bytes | None) -> str:
    return canonical_json(parse_message(value)["state"])


@given(
    JSON_VALUES,
    st.fixed_dictionaries(
        {},
        optional={
            "message_id": st.none() | st.text(),
            "text": st.none() | st.text(),
            "anything else": JSON_VALUES,
        },
    ),
    st.booleans(),
)
def test_any_json_value_is_a_state(state, others, with_byte_order_mark):
    value = json.dumps({**others, "state": state}).encode()
    served = state_json((b"\xef\xbb\xbf" if with_byte_order_mark else b"") + value)
    assert json.loads(served) == state
    assert served.isascii()


@given(st.none() | st.binary())
def test_any_bytes_are_a_state_or_invalid_with_a_reason(value):
    try:
        json.loads(state_json(value))
    except InvalidMessage as error:
        assert error.reason in {"tombstone", "encoding", "json", "schema"}


@given(JSON_VALUES.filter(lambda value: not isinstance(value, dict)))
def test_a_document_that_is_no_object_is_invalid(document):
    assert reason(json.dumps(document)) == "schema"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "tombstone"),
        (b'\xff{"state":1}', "encoding"),
        ('{"state":1}'.encode("utf-16"), "encoding"),
        (b"", "json"),
        (b"77", "schema"),
        (b"{}", "schema"),
        (b'{"state":1', "json"),
        (b'{"state":1} {"state":2}', "json"),
        (b'{"state":NaN}', "json"),
        (b'{"state":-Infinity}', "json"),
        (b'{"state":1e999}', "json"),
        (b'{"state":1,"other":[1e999]}', "json"),
        (b'{"state":' + b"9" * 5000 + b"}", "json"),
        (b'{"state":' + b"[" * 200_000 + b"]" * 200_000 + b"}", "json"),
        (b'{"state":1,"message_id":5}', "schema"),
        (b'{"state":1,"text":["a"]}', "schema"),
    ],
)
def test_invalid_messages_have_a_reason(value, expected):
    assert reason(value) == expected


def test_nesting_has_a_limit_that_does_not_depend_on_the_caller():
    def nested(depth: int) -> bytes:
        lists = depth - 1  # within the message's own object
        return f'{{"state":{"[" * lists}{"]" * lists}}}'.encode()

    def called_from(frames: int, depth: int) -> str:
        return called_from(frames - 1, depth) if frames else state_json(nested(depth))

    def outcomes() -> None:
        for frames in (0, 40):
            called_from(frames, DEEPEST_NESTING)
            with pytest.raises(InvalidMessage, match="nested more than"):
                called_from(frames, DEEPEST_NESTING + 1)

    # in a thread of its own, as the consumer: pytest's stack is deep already
    with ThreadPoolExecutor(1) as executor:
        executor.submit(outcomes).result(10)


def test_many_brackets_are_not_nesting():
    assert json.loads(state_json(b'{"state":[' + b"[{}]," * 5000 + b"0]}"))[-1] == 0


def test_numbers_keep_their_kind():
    assert state_json(b'{"state":[1,1.0,1e2,-0.0]}') == "[1,1.0,100.0,-0.0]"
    assert math.isfinite(json.loads(state_json(b'{"state":1e308}')))


def test_the_detail_of_an_invalid_message_is_bounded_and_does_not_hold_its_value():
    secret = "s3cret" * 1000
    for value in (f'{{"state":{secret}', f'{{"text":"{secret}"}}', f'["{secret}"]'):
        with pytest.raises(InvalidMessage) as caught:
            state_json(value.encode())
        assert "s3cret" not in str(caught.value)
        assert len(str(caught.value)) < 200


def reason(value: str | bytes | None) -> str:
    with pytest.raises(InvalidMessage) as caught:
        state_json(value.encode() if isinstance(value, str) else value)
    return caught.value.reason
