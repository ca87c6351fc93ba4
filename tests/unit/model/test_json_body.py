"""Long lists of numbers in JSON: read in pieces, and read as short ones are."""

from __future__ import annotations

import contextlib
import json
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.model import json_body
from app.model.datatypes import BadRequest
from app.model.json_body import LongList, parse_body
from app.model.tensors import TensorSpec, read_request
from app.strict_json import parse_json
from tests.support.tensors import KNOWN_TO_NUMPY, arrays_of, each_datatype, tensor

MEASURING_SECONDS = 60
NUMBERS = [datatype for datatype in KNOWN_TO_NUMPY if datatype != "BYTES"]


@pytest.fixture
def short_pieces(monkeypatch):
    monkeypatch.setattr(json_body, "LONG_BYTES", 16)


def set_aside(text: bytes) -> list[LongList]:
    return list(parse_body(text, lambda size: None)[1].values())


def read_x(
    data: bytes, shape: Any, datatype: str = "FP32", after: bytes = b"", hold=lambda size: None
) -> Any:
    """What becomes of the JSON text of an input's data."""
    rest = json.dumps({"name": "x", "datatype": datatype, "shape": shape})[1:-1].encode()
    body = b'{"inputs":[{"data":%b%b,%b}]}' % (data, after, rest)
    spec = TensorSpec("x", datatype, (-1,) * len(shape))
    return read_request(body, None, [spec], [], hold).inputs["x"]


@each_datatype
@given(data=st.data())
def test_a_tensor_is_the_same_whether_its_list_is_long_or_not(datatype, data):
    array = data.draw(arrays_of(datatype, finite=True))
    nested = data.draw(st.booleans())
    elements = (array if nested else array.ravel()).tolist()
    text = json.dumps(
        elements, indent=data.draw(st.sampled_from([None, 1])), ensure_ascii=False
    ).encode()
    if not array.ndim:
        text = b"[%b]" % text if nested else text
    long = json_body.LONG_BYTES
    json_body.LONG_BYTES = data.draw(st.integers(20, 60))
    try:
        read = read_x(text, array.shape, datatype)
    finally:
        json_body.LONG_BYTES = long
    assert read.dtype == array.dtype
    np.testing.assert_array_equal(read, array)


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        (b"[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]", [7]),
        (b"[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]", [3, 2]),
        (b"[ [ 1.0, 2.0 ]\n, [ 3.0, 4.0 ]\n, [ 5.0, 6.0 ] ]", [3, 2]),
        (b"[[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]]", [1, 7]),
        (b" [ [ [ 1.0, 2.0, 3.0, 4.0, 5.0 ] ] ] ", [1, 1, 5]),
        (b"[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]", [1, 7]),
        (b"[[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [7.0, 8.0, 9.0, 10.0, 11.0, 12.0]]", [2, 6]),
        (b"[[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]]", [2, 2, 2]),
        (b"[[[1.0],[2.0]],[[3.0],[4.0]],[[5.0],[6.0]]]", [3, 2, 1]),
    ],
)
def test_a_long_list_is_read_in_pieces(short_pieces, text, shape):
    (long_list,) = set_aside(b'{"data":%b}' % text)
    assert len(list(long_list.pieces(shape, lambda size: None))) > 1
    size = int(np.prod(shape))
    assert read_x(text, shape).ravel().tolist() == list(range(1, size + 1))


def test_nan_and_null_in_a_long_list_are_missing_values(short_pieces):
    read = read_x(b"[NaN, 2.0, null, 4.0, NaN, 6.0, NaN]", [7])
    np.testing.assert_array_equal(read, [np.nan, 2, np.nan, 4, np.nan, 6, np.nan])


def test_several_long_lists_are_told_apart(short_pieces):
    specs = [TensorSpec(name, "INT64", (-1,)) for name in "ab"]
    body = json.dumps(
        {"inputs": [tensor([n] * 20, [20], "INT64", name) for n, name in enumerate("ab")]}
    ).encode()
    assert len(set_aside(body)) == 2
    inputs = read_request(body, None, specs, []).inputs
    assert [set(inputs[name].tolist()) for name in "ab"] == [{0}, {1}]


@pytest.mark.parametrize(
    ("text", "shape", "accepted"),
    [
        (b"[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]", [8], "7 elements; accepted for its shape are 8"),
        (b"[1.0, 2.0, 3.0, 4.0, 5.0,, 6.0]", [7], "is not JSON"),
        (b"[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]]", [6], "not JSON"),
        (b"[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], 7.0, 8.0]", [4, 2], "not nested as its shape"),
        (b"[[1.0, 2.0], [3.0, 4.0, 5.0, 6.0]]", [3, 2], "not nested as its shape"),
        (b"[[1.0, 2.0, 3.0, 4.0], [5.0, 6.0]]", [1, 6], "not nested as its shape"),
        (b"[[1.0, 2.0, 3.0, 4.0, 5.0], 6.0, 7.0]", [1, 7], "not nested as its shape"),
        (
            b"[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]",
            [0],
            "has 7 elements; accepted for its shape are 0",
        ),
        (b"[[],[],[],[],[],[],[],[],[],[1.0]]", [10, 0], "not nested as its shape"),
        (b"[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 1e39]", [7], "accepted for FP32 is from"),
        (b"[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, -NaN]", [7], "is not JSON"),
        (b"[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, Infinity]", [7], "is not JSON"),
        (b"[1.0, 2.0, 3.0, 4.0, true, 6.0, 1.0]", [7], "has true; accepted for FP32 are numbers"),
    ],
)
def test_a_long_list_that_does_not_fit_is_refused(short_pieces, text, shape, accepted):
    with pytest.raises(BadRequest, match=accepted):
        read_x(text, shape)


@pytest.mark.parametrize(
    "text",
    [
        b'["[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]"]',
        b'["a [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0] b"]',
        b'["\\"[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]\\""]',
    ],
)
def test_a_string_with_a_long_list_in_it_stays_a_string(short_pieces, text):
    assert read_x(text, [1], "BYTES").tolist() == orjson.loads(text)


@pytest.mark.parametrize("after", [b"]", b"}", b",1", b"[1]", b'"'])
def test_what_is_no_json_after_a_long_list_is_refused(short_pieces, after):
    with pytest.raises(BadRequest, match="not JSON"):
        read_x(b"[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]", [7], after=after)


def peak_memory(call: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def peak_beyond_what_is_held(read: Callable[..., object], *arguments: object) -> int:
    """Give how many bytes more are taken than `read` holds."""
    held: list[int] = []
    peak = peak_memory(lambda: read(*arguments, held.append))
    assert peak > 0
    return peak - sum(held)


def read_rows(text: bytes, rows: int, hold: Callable[[int], None]) -> None:
    with contextlib.suppress(BadRequest):
        read_x(text, [rows, 10**6 // rows], hold=hold)


@pytest.mark.parametrize(
    "text",
    [
        b"[" + b",".join([b"0.25"] * 100_000) + b"]",
        b"[" + b",".join([b"[]"] * 100_000) + b"]",
        b"[" + b",".join([b"{}"] * 50_000) + b"]",
        b"[" + b",".join([b'{"a":1}'] * 50_000) + b"]",
        b"[" + b",".join([b'"ab"'] * 100_000) + b"]",
        b'["' + b"a" * 300_000 + '\U0001f600"]'.encode(),
    ],
    ids=["floats", "lists", "objects", "members", "strings", "a wide string"],
)
def test_parsing_takes_no_more_memory_than_it_says_before(own_process, text):
    measured = own_process.submit(peak_beyond_what_is_held, parse_body, text)
    assert measured.result(MEASURING_SECONDS) < 0


def test_a_long_list_takes_a_fraction_of_what_its_elements_would_as_a_list():
    count = 10**6
    text = b"[" + b",".join([b"0.5"] * count) + b"]"
    as_list = peak_memory(lambda: orjson.loads(text))
    assert peak_memory(lambda: read_x(text, [count])) < as_list / 3


@pytest.mark.parametrize("rows", [1, 2, 500_000])
def test_one_that_is_nested_otherwise_takes_no_more_memory_than_it_says_before(own_process, rows):
    text = b"[[" + b",".join([b"0.5"] * 10**6) + b"]]"

    measured = own_process.submit(peak_beyond_what_is_held, read_rows, text, rows)
    assert measured.result(MEASURING_SECONDS) < 2 * json_body.BYTES_PER_PIECE


def test_nan_beside_a_long_list_does_not_have_all_of_it_parsed_at_once(short_pieces, monkeypatch):
    texts = []

    def parse(text: str, **options: Any) -> Any:
        texts.append(text)
        return parse_json(text, **options)

    monkeypatch.setattr(json_body, "parse_json", parse)
    long = [1.0] * 20
    inputs = [tensor([float("nan")], [1], name="a"), tensor(long, [20], name="b")]
    body = json.dumps({"inputs": inputs}).encode()
    specs = [TensorSpec(name, "FP32", (-1,)) for name in "ab"]
    read = read_request(body, None, specs, []).inputs
    assert np.isnan(read["a"]).all()
    assert read["b"].tolist() == long
    assert all(len(text) < len(body) - 60 for text in texts)


def test_only_the_data_of_an_input_is_set_aside(short_pieces):
    for text in (
        b'{"inputs":[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]}',
        b'["data", [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]]',
        b"[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]",
    ):
        assert set_aside(text) == []
