"""Requests: inputs, outputs, ids, and bodies that are none."""

from __future__ import annotations

import json

import pytest

from app.model.datatypes import BadRequest
from app.model.tensors import read_request, write_response
from app.strict_json import DEEPEST_NESTING
from tests.support.tensors import LABELS, ROWS, SCORES, SPEC, WORDS, read, refusal, tensor


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        (None, "missing are the inputs x; accepted"),
        ([], "missing are the inputs x; accepted"),
        ({}, "inputs of the request is an object of 0; accepted is a list"),
        ("x", "accepted is a list"),
        (["x"], 'an input is "x"; accepted is an object'),
        ([None], "an input is null; accepted is an object"),
        ([tensor([1], [1], name="z")], 'name of an input is "z"; accepted is one of x'),
        ([tensor([1], [1], name=None)], "name of an input is missing; accepted is one of x"),
        ([tensor([1], [1], name=5)], "name of an input is 5; accepted is a string"),
        ([tensor([1], [1])] * 2, "input x is there twice; accepted is once"),
        ([tensor([1], [1], parameters=[])], "parameters of input x is a list of 0; accepted"),
        ([tensor(None, [1])], "input x has neither data nor binary_data_size; accepted"),
    ],
)
def test_inputs_that_the_model_does_not_have_are_refused(inputs, expected):
    assert expected in refusal({"inputs": inputs}, inputs=[SPEC])


def test_every_input_is_needed():
    refused = refusal({"inputs": [tensor([], [0])]}, inputs=[ROWS, SPEC, WORDS])
    assert refused == "missing are the inputs rows, words; accepted is a request with all inputs"


@pytest.mark.parametrize("extension", ["shared_memory_region", "classification"])
def test_extensions_that_are_not_served_are_refused(extension):
    parameters = {extension: 1}
    given = tensor(None, [1], parameters=parameters)
    assert f"input x has the parameter {extension}; accepted" in refusal(
        {"inputs": [given]}, inputs=[SPEC]
    )
    asked = {"outputs": [{"name": "scores", "parameters": parameters}]}
    assert f"output scores has the parameter {extension}; accepted" in refusal(
        asked, outputs=[SCORES]
    )


def test_what_is_not_known_is_ignored():
    unknown = {"parameters": {"priority": 1, "x": []}, "else": {"any": ["thing"]}}
    document = {
        "inputs": [tensor([1], [1], **unknown)],
        "outputs": [{"name": "scores", **unknown}],
        **unknown,
    }
    request = read(document, None, [SPEC], [SCORES])
    assert request.inputs["x"].tolist() == [1]
    assert request.outputs == {"scores": False}


# the request


@pytest.mark.parametrize("identity", ["", "7", "\ud800", "ü" * 1000])
def test_the_id_is_any_string(identity):
    request = read({"id": identity})
    assert request.id == identity
    body, _ = write_response({"id": request.id}, {}, {})
    assert json.loads(body)["id"] == identity


@pytest.mark.parametrize("identity", [7, True, ["7"], {}])
def test_an_id_that_is_no_string_is_refused(identity):
    assert "accepted is a string" in refusal({"id": identity})


def test_null_counts_as_missing():
    output = {"name": "scores", "parameters": None}
    given = tensor([1], [1], parameters={"binary_data_size": None, "shared_memory_region": None})
    document = {"id": None, "parameters": None, "inputs": [given], "outputs": [output]}
    request = read(document, None, [SPEC], [SCORES])
    assert (request.id, request.outputs) == (None, {"scores": False})
    assert read({"outputs": None}).inputs == {}


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({}, {"scores": False, "labels": False}),
        ({"outputs": []}, {"scores": False, "labels": False}),
        ({"parameters": {"binary_data_output": True}}, {"scores": True, "labels": True}),
        ({"outputs": [{"name": "labels"}]}, {"labels": False}),
        (
            {
                "parameters": {"binary_data_output": True},
                "outputs": [
                    {"name": "labels"},
                    {"name": "scores", "parameters": {"binary_data": False}},
                ],
            },
            {"labels": True, "scores": False},
        ),
        (
            {
                "parameters": {"binary_data_output": False},
                "outputs": [{"name": "scores", "parameters": {"binary_data": True}}],
            },
            {"scores": True},
        ),
    ],
)
def test_outputs_are_those_asked_for_or_all_and_binary_where_it_is_said(document, expected):
    wanted = read(document, outputs=[SCORES, LABELS]).outputs
    assert list(wanted.items()) == list(expected.items())


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"outputs": {}}, "accepted is a list"),
        ({"outputs": ["scores"]}, 'an output is "scores"; accepted is an object'),
        ({"outputs": [{}]}, "name of an output is missing; accepted is one of scores, labels"),
        ({"outputs": [{"name": "x"}]}, 'name of an output is "x"; accepted is one of scores'),
        ({"outputs": [{"name": "scores"}] * 2}, "output scores is there twice"),
        ({"outputs": [{"name": "scores", "parameters": 1}]}, "accepted is an object"),
        (
            {"outputs": [{"name": "scores", "parameters": {"binary_data": 1}}]},
            "binary_data of output scores is 1; accepted is true or false",
        ),
        ({"parameters": {"binary_data_output": "yes"}}, "accepted is true or false"),
        ({"parameters": [1]}, "parameters of the request is a list of 1; accepted is an object"),
    ],
)
def test_other_outputs_are_refused(document, expected):
    assert expected in refusal(document, outputs=[SCORES, LABELS])


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"{} {}", "not JSON"),
        (b'{"id":NaN}', "id of the request is NaN; accepted is a string"),
        (b'{"id":Infinity}', "Infinity is not JSON"),
        (b'{"inputs":[1e999]}', "too large for a float"),
        (b"\xff", "not UTF-8 at byte 0"),
        ("{}".encode("utf-16"), "not UTF-8"),
        (b"[]", "the request is a list of 0; accepted is an object"),
        (b"null", "the request is null; accepted is an object"),
        (b"[" * 200_000, "not JSON"),
        (
            b'{"id":' + b"[" * 1200 + b"]" * 1200 + b"}",
            f"nested more than {DEEPEST_NESTING}|not JSON",
        ),
    ],
)
def test_a_body_that_is_no_json_object_is_refused(body, expected):
    with pytest.raises(BadRequest, match=expected):
        read_request(body, None, [], [])


@pytest.mark.parametrize("json_size", [-1, 3, 2**70])
def test_a_json_size_outside_of_the_body_is_refused(json_size):
    with pytest.raises(BadRequest, match=f"is {json_size}; accepted is the size of the JSON"):
        read_request(b"{}", json_size, [], [])


# binary data
