"""What is answered, in JSON and as binary data."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tritonclient.http import InferenceServerClient, InferInput

from app.model.datatypes import DATATYPES, BadRequest
from app.model.tensors import TensorSpec, read_request, write_response
from tests.support.tensors import refusal_of_input, tensor


def test_the_answer_is_as_the_protocol_says():
    outputs = {
        "scores": np.array([[0.5, 1]], np.float32),
        "labels": np.array(["ü"], object),
        "flags": np.array([True, False]),
        "count": np.array(3, np.int64),
        "none": np.empty((0, 2), np.float16),
    }
    body, json_size = write_response(
        {"model_name": "m", "model_version": "1", "id": "7"}, outputs, dict.fromkeys(outputs, False)
    )
    assert json_size is None
    assert json.loads(body) == {
        "model_name": "m",
        "model_version": "1",
        "id": "7",
        "outputs": [
            {"name": "scores", "datatype": "FP32", "shape": [1, 2], "data": [0.5, 1]},
            {"name": "labels", "datatype": "BYTES", "shape": [1], "data": ["ü"]},
            {"name": "flags", "datatype": "BOOL", "shape": [2], "data": [True, False]},
            {"name": "count", "datatype": "INT64", "shape": [], "data": [3]},
            {"name": "none", "datatype": "FP16", "shape": [0, 2], "data": []},
        ],
    }
    body, json_size = write_response({}, outputs, {"labels": True, "count": False, "flags": True})
    assert body[json_size:] == b"\x02\x00\x00\x00\xc3\xbc\x01\x00"
    assert json.loads(body[:json_size])["outputs"] == [
        {
            "name": "labels",
            "datatype": "BYTES",
            "shape": [1],
            "parameters": {"binary_data_size": 6},
        },
        {"name": "count", "datatype": "INT64", "shape": [], "data": [3]},
        {
            "name": "flags",
            "datatype": "BOOL",
            "shape": [2],
            "parameters": {"binary_data_size": 2},
        },
    ]


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64"])
@pytest.mark.parametrize("element", ["nan", "inf", "-inf"])
def test_what_json_has_no_word_for_is_answered_as_binary_data_only(datatype, element):
    outputs = {"y": np.array([0, float(element)], DATATYPES[datatype])}
    with pytest.raises(BadRequest, match="output y has NaN or infinity") as refused:
        write_response({}, outputs, {"y": False})
    assert '"parameters": {"binary_data": true}' in str(refused.value)
    body, json_size = write_response({}, outputs, {"y": True})
    assert body[json_size:] == outputs["y"].tobytes()


def test_bfloat16_is_taken_and_given_as_binary_data_only():
    spec = TensorSpec("x", "BF16", (-1,))
    given = np.array([1.5, -2.0, np.inf], np.float32)
    sent = InferInput("x", [3], "BF16")
    sent.set_data_from_numpy(given)
    body, json_size = InferenceServerClient.generate_request_body([sent])
    array = read_request(body, json_size, [spec], []).inputs["x"]
    body, json_size = write_response({}, {"y": array}, {"y": True})
    result = InferenceServerClient.parse_response_body(body, header_length=json_size)
    np.testing.assert_array_equal(result.as_numpy("y"), given)
    only = "accepted for BF16 is binary data"
    assert only in refusal_of_input(tensor([1.5], [1], "BF16"), [-1])
    with pytest.raises(BadRequest, match=only):
        write_response({}, {"y": array}, {"y": False})


# any body
