"""Any bytes are a request or a bad one, and large ones are refused in time."""

from __future__ import annotations

import copy
import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.model.datatypes import DATATYPES, BadRequest
from app.model.tensors import TensorSpec, read_request
from tests.support.json_values import JSON_VALUES
from tests.support.tensors import (
    LABELS,
    ROWS,
    SCORES,
    SPEC,
    WORDS,
    binary_tensor,
    read,
    read_input,
    refusal,
    refusal_of_input,
    tensor,
)

VALID = {
    "id": "7",
    "parameters": {"binary_data_output": True},
    "inputs": [
        {
            "name": "rows",
            "shape": [1, 2],
            "datatype": "FP32",
            "parameters": {"binary_data_size": 8},
        },
        {"name": "nested", "shape": [2, 1], "datatype": "INT8", "data": [[1], [2]]},
        {
            "name": "words",
            "shape": [1],
            "datatype": "BYTES",
            "parameters": {"binary_data_size": 5},
        },
        {"name": "flags", "shape": [2], "datatype": "BOOL", "data": [True, False]},
    ],
    "outputs": [{"name": "scores", "parameters": {"binary_data": False}}],
}
BINARY = struct.pack("<2f", 1, 2) + b"\x01\x00\x00\x00a"
INPUTS = [
    ROWS,
    TensorSpec("nested", "INT8", (-1, 1)),
    WORDS,
    TensorSpec("flags", "BOOL", (-1,)),
]

hostile_values = st.sampled_from(
    [
        *(None, True, 0, 1, 2, 8, -1, 1.0, 2**31, 2**63, 10**400, 1e300),
        *("", "rows", "FP32", "BYTES"),
        *([], {}, [[]], [[1, 2]], [0, 0], ["a"], ["\ud800"], {"binary_data_size": 0}),
    ]
)


def places(value, path=()):
    children = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, child in children:
        yield (*path, key)
        yield from places(child, (*path, key))


@st.composite
def mutations(draw):
    document = copy.deepcopy(VALID)
    for _ in range(draw(st.integers(0, 4))):
        *path, key = draw(st.sampled_from(sorted(places(document), key=str)))
        parent = document
        for step in path:
            parent = parent[step]
        how = draw(st.sampled_from(["replace", "remove", "repeat"]))
        if how == "replace":
            parent[key] = copy.deepcopy(draw(hostile_values | JSON_VALUES))
        elif how == "remove":
            del parent[key]
        elif isinstance(parent, list):
            parent.insert(key, copy.deepcopy(parent[key]))
        if not document:
            break
    return document


def assert_request_or_bad_request(body: bytes, json_size: int | None) -> None:
    try:
        request = read_request(body, json_size, INPUTS, [SCORES, LABELS])
    except BadRequest as error:
        assert "accepted" in str(error) or "JSON" in str(error)
        assert len(str(error)) < 1000
        return
    assert set(request.inputs) == {spec.name for spec in INPUTS}
    for spec in INPUTS:
        array = request.inputs[spec.name]
        assert array.dtype == DATATYPES[spec.datatype]
        assert array.nbytes <= 8 * len(body)
        assert len(array.shape) == len(spec.shape)
    assert set(request.outputs) <= {"scores", "labels"}


def test_the_request_that_is_mutated_is_valid():
    request = read(VALID, BINARY, INPUTS, [SCORES, LABELS])
    assert request.inputs["rows"].tolist() == [[1, 2]]
    assert request.inputs["words"].tolist() == ["a"]
    assert request.outputs == {"scores": False}


@given(JSON_VALUES | st.dictionaries(st.sampled_from(list(VALID)), JSON_VALUES))
def test_any_json_is_a_request_or_a_bad_one(document):
    assert_request_or_bad_request(json.dumps(document).encode(), None)


@given(mutations(), st.just(BINARY) | st.binary(max_size=20), st.integers(-2, 2) | st.none())
def test_any_mutation_of_a_request_is_one_or_a_bad_one(document, binary, shift):
    head = json.dumps(document).encode()
    assert_request_or_bad_request(head + binary, None if shift is None else len(head) + shift)


@given(st.binary(), st.integers(0, 400), st.integers(0, 10))
def test_any_bytes_are_a_request_or_a_bad_one(replacement, start, length):
    head = json.dumps(VALID).encode()
    body = head + BINARY
    body = body[:start] + replacement + body[start + length :]
    assert_request_or_bad_request(body, len(head))


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "document",
    [
        lambda: {"inputs": [tensor([[[]] * 500_000], [1])]},
        lambda: {"inputs": [tensor([[1]] * 200_000 + [1], [200_001, 1])]},
        lambda: {"inputs": [tensor([10**400] * 10_000, [10_000])]},
        lambda: {"inputs": [tensor([1] * 1_000_000, [1_000_000])] * 2},
        lambda: {"inputs": [tensor([1], list(range(1_000_000)))]},
        lambda: {"inputs": [tensor([1], [1], name="x" * 5_000_000)]},
        lambda: {"inputs": [tensor([1], [1], name=f"x{number}") for number in range(100_000)]},
        lambda: {"inputs": [tensor([{str(number): 1 for number in range(100_000)}], [1])]},
        lambda: {"outputs": [{"name": "scores"}] * 500_000},
        lambda: {"outputs": [{"name": "\ud800" * 500_000}]},
    ],
    ids=range(10),
)
def test_a_large_body_is_refused_in_time_and_in_few_words(document):
    assert len(refusal(document(), None, [SPEC], [SCORES])) < 400


@pytest.mark.timeout(20)
def test_many_strings_are_read_in_time():
    binary = b"\0\0\0\0" * 500_000
    given = binary_tensor(len(binary), [500_000], "BYTES")
    assert read_input(given, [-1], binary).shape == (500_000,)
    assert "ends within" in refusal_of_input(
        {**given, "parameters": {"binary_data_size": len(binary) - 1}}, [-1], binary[:-1]
    )
