"""What clients send and read, by the protocol's own client and onnxruntime."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

from app.model.datatypes import DATATYPE_OF_ONNX, DATATYPES
from app.model.tensors import TensorSpec, read_request, write_response
from tests.support.tensors import (
    KNOWN_TO_NUMPY,
    LABELS,
    ROWS,
    SCORES,
    WORDS,
    arrays_of,
    assert_same,
    binary_tensor,
    each_datatype,
    identity,
    in_json_and_binary,
    onnx_type_of,
    read,
    tensor,
)


@in_json_and_binary
@each_datatype
@settings(max_examples=settings().max_examples // 3)  # of each of 26
@given(data=st.data())
def test_what_a_client_sends_is_read(datatype, binary, data):
    array = data.draw(arrays_of(datatype, finite=not binary))
    sent = InferInput("x", list(array.shape), datatype)
    sent.set_data_from_numpy(array, binary_data=binary)
    body, json_size = InferenceServerClient.generate_request_body([sent], request_id="7")
    request = read_request(body, json_size, [TensorSpec("x", datatype, (-1,) * array.ndim)], [])
    assert_same(request.inputs["x"], array)
    assert request.id == "7"


@in_json_and_binary
@each_datatype
@settings(max_examples=settings().max_examples // 3)  # of each of 26
@given(data=st.data())
def test_what_is_answered_a_client_reads(datatype, binary, data):
    array = data.draw(arrays_of(datatype, finite=not binary))
    body, json_size = write_response({"model_name": "m"}, {"y": array}, {"y": binary})
    result = InferenceServerClient.parse_response_body(body, header_length=json_size)
    got = result.as_numpy("y")
    if datatype == "BYTES":
        decoded = [text.decode() if binary else text for text in got.ravel().tolist()]
        got = np.array(decoded, object).reshape(got.shape)
    # this client makes floats of no binary data
    assert_same(got if array.size else got.astype(array.dtype), array)
    assert result.get_response()["model_name"] == "m"
    assert (json_size is not None) == binary


def test_several_tensors_of_a_client_are_told_apart_in_any_order():
    rows = InferInput("rows", [2, 2], "FP32")
    rows.set_data_from_numpy(np.arange(4, dtype=np.float32).reshape(2, 2))
    words = InferInput("words", [2], "BYTES")
    words.set_data_from_numpy(np.array(["ä", ""], object))
    flags = InferInput("flags", [1], "BOOL")
    flags.set_data_from_numpy(np.array([True]), binary_data=False)
    body, json_size = InferenceServerClient.generate_request_body(
        [words, flags, rows],
        [InferRequestedOutput("labels"), InferRequestedOutput("scores", binary_data=False)],
    )
    inputs = [ROWS, TensorSpec("flags", "BOOL", (-1,)), WORDS]
    request = read_request(body, json_size, inputs, [SCORES, LABELS])
    assert {name: array.tolist() for name, array in request.inputs.items()} == {
        "words": ["ä", ""],
        "flags": [True],
        "rows": [[0, 1], [2, 3]],
    }
    assert list(request.outputs.items()) == [("labels", True), ("scores", False)]


@in_json_and_binary
def test_several_outputs_are_in_the_order_they_were_asked_for(binary):
    outputs = {"scores": np.array([0.5], np.float32), "labels": np.array(["a", "bc"], object)}
    body, json_size = write_response({}, outputs, {"labels": True, "scores": binary})
    result = InferenceServerClient.parse_response_body(body, header_length=json_size)
    assert [output["name"] for output in result.get_response()["outputs"]] == ["labels", "scores"]
    assert result.as_numpy("labels").tolist() == [b"a", b"bc"]
    assert result.as_numpy("scores").tolist() == [0.5]


# with onnxruntime


@pytest.mark.parametrize(
    ("onnx_name", "datatype"),
    [item for item in DATATYPE_OF_ONNX.items() if item[1] in KNOWN_TO_NUMPY],
)
def test_onnxruntime_takes_what_is_read_and_gives_what_can_be_written(onnx_name, datatype):
    session = identity(onnx_type_of(datatype))
    assert session.get_inputs()[0].type == onnx_name
    # an odd number of bytes before it
    given = [binary_tensor(1, [1], "INT8", "first"), tensor(["a", "ü\0"], [2], datatype)]
    if datatype != "BYTES":
        given[1]["data"] = [True, False] if datatype == "BOOL" else [1, 0]
    specs = [TensorSpec("first", "INT8", (1,)), TensorSpec("x", datatype, (-1,))]
    array = read({"inputs": given}, b"\1", specs).inputs["x"]
    (output,) = session.run(None, {"x": array})
    assert_same(output, array)
    for binary in (False, True):
        body, json_size = write_response({}, {"y": output}, {"y": binary})
        described = json.loads(body[:json_size])["outputs"][0]
        assert (described["datatype"], described["shape"]) == (datatype, [2])


def test_what_onnxruntime_has_and_the_protocol_has_not_is_no_datatype():
    session = identity(onnx.TensorProto.FLOAT8E4M3FN)
    assert session.get_inputs()[0].type not in DATATYPE_OF_ONNX


@pytest.mark.parametrize("datatype", sorted(set(KNOWN_TO_NUMPY) - {"BYTES"}))
def test_binary_data_are_aligned_for_onnxruntime_wherever_they_begin(datatype):
    expected = np.arange(7).astype(DATATYPES[datatype])
    session = identity(onnx_type_of(datatype))
    binary = expected.tobytes()
    views = 0
    for padding in range(16):
        head = json.dumps({"inputs": [binary_tensor(len(binary), [7], datatype)]}) + " " * padding
        body = head.encode() + binary
        array = read_request(body, len(head), [TensorSpec("x", datatype, (7,))], []).inputs["x"]
        assert array.flags.aligned
        views += np.shares_memory(array, np.frombuffer(body, np.uint8))
        assert_same(session.run(None, {"x": array})[0], expected)
    assert views == 16 // expected.itemsize  # not copied where it need not


# JSON
