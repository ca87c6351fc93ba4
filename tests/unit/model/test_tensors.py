"""Against the protocol's own client, tritonclient, and onnxruntime, which take and give arrays."""

from __future__ import annotations

import copy
import json
import re
import struct
import tracemalloc

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

from app.model.elements import DATATYPE_OF_ONNX, DATATYPES, BadRequest, to_binary
from app.model.tensors import TensorSpec, read_request, write_response
from app.strict_json import DEEPEST_NESTING
from tests.support.json_values import JSON_VALUES

ROWS = TensorSpec("rows", "FP32", (-1, 2))
WORDS = TensorSpec("words", "BYTES", (-1,))
SPEC = TensorSpec("x", "FP32", (-1,))
SCORES = TensorSpec("scores", "FP32", (-1,))
LABELS = TensorSpec("labels", "BYTES", (-1,))

# the protocol has no JSON for BF16, and numpy no numbers
KNOWN_TO_NUMPY = [datatype for datatype in DATATYPES if datatype != "BF16"]
each_datatype = pytest.mark.parametrize("datatype", KNOWN_TO_NUMPY)
in_json_and_binary = pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])

strings = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def arrays_of(datatype: str, finite: bool) -> st.SearchStrategy[np.ndarray]:
    dtype = DATATYPES[datatype]
    elements = strings if datatype == "BYTES" else npst.from_dtype(dtype)
    if finite and dtype.kind == "f":
        elements = npst.from_dtype(dtype, allow_nan=False, allow_infinity=False)
    return npst.arrays(
        dtype, npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4), elements=elements
    )


def tensor(data, shape, datatype="FP32", name="x", **members):
    return {"name": name, "shape": shape, "datatype": datatype, "data": data, **members}


def binary_tensor(size, shape, datatype="FP32", name="x"):
    return {
        "name": name,
        "shape": shape,
        "datatype": datatype,
        "parameters": {"binary_data_size": size},
    }


def read(document, binary=None, inputs=(), outputs=()):
    head = json.dumps(document).encode()
    return read_request(
        head + (binary or b""), None if binary is None else len(head), inputs, outputs
    )


def read_input(given, accepted_shape, binary=None):
    spec = TensorSpec("x", given["datatype"], tuple(accepted_shape))
    return read({"inputs": [given]}, binary, [spec]).inputs["x"]


def refusal(*args, **kwargs) -> str:
    with pytest.raises(BadRequest) as caught:
        read(*args, **kwargs)
    return str(caught.value)


def refusal_of_input(given, accepted_shape, binary=None) -> str:
    with pytest.raises(BadRequest) as caught:
        read_input(given, accepted_shape, binary)
    return str(caught.value)


def assert_same(read_array, array):
    assert read_array.dtype == array.dtype
    assert read_array.shape == array.shape
    np.testing.assert_array_equal(read_array, array)


def identity(onnx_type: int, rank: int = 1) -> onnxruntime.InferenceSession:
    dims = [f"d{axis}" for axis in range(rank)]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["x"], ["y"])],
        "identity",
        [onnx.helper.make_tensor_value_info("x", onnx_type, dims)],
        [onnx.helper.make_tensor_value_info("y", onnx_type, dims)],
    )
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 19)], ir_version=9
    )
    return onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )


def onnx_type_of(datatype: str) -> int:
    if datatype == "BYTES":
        return onnx.TensorProto.STRING
    return onnx.helper.np_dtype_to_tensor_dtype(DATATYPES[datatype])


# with the client


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


@pytest.mark.parametrize(
    ("datatype", "data"),
    [
        ("BOOL", [True, False]),
        ("INT8", [-128, 127]),
        ("UINT8", [0, 255]),
        ("INT16", [-(2**15), 2**15 - 1]),
        ("UINT16", [0, 2**16 - 1]),
        ("INT32", [-(2**31), 2**31 - 1]),
        ("UINT32", [0, 2**32 - 1]),
        ("INT64", [-(2**63), 2**63 - 1]),
        ("UINT64", [0, 2**64 - 1]),
        ("FP16", [65504, -65504.0]),
        ("FP32", [3.4028234e38, 10**38]),
        ("FP64", [1.7976931348623157e308, 10**308]),
        ("BYTES", ["", "a\0ü\U0001f600"]),
    ],
)
def test_the_whole_range_of_each_datatype_is_accepted(datatype, data):
    array = read_input(tensor(data, [2], datatype), [-1])
    assert_same(array, np.array(data, DATATYPES[datatype]))


@pytest.mark.parametrize(
    ("datatype", "element", "expected"),
    [
        ("INT64", 1.5, "has 1.5; accepted for INT64 are integers"),
        ("INT64", 1.0, "has 1.0; accepted for INT64 are integers"),
        ("INT64", True, "has true; accepted"),
        ("INT64", "1", 'has "1"; accepted'),
        ("INT64", None, "has null; accepted"),
        ("INT64", [1], "has a list of 1; accepted"),
        ("INT64", {}, "has an object of 0; accepted"),
        ("INT64", 2**63, "to 9223372036854775808; accepted for INT64 is from -9223372036854775808"),
        ("INT64", -(2**63) - 1, "is from -9223372036854775809 to 0; accepted"),
        ("UINT64", -1, "is from -1 to 0; accepted for UINT64 is from 0 to 18446744073709551615"),
        ("UINT64", 2**64, "accepted for UINT64"),
        ("INT32", 2**31, "accepted for INT32"),
        ("UINT32", 2**32, "accepted for UINT32"),
        ("UINT32", -1, "accepted for UINT32"),
        ("INT16", 2**15, "accepted for INT16"),
        ("UINT16", 2**16, "accepted for UINT16"),
        ("INT8", 128, "accepted for INT8 is from -128 to 127"),
        ("INT8", -129, "accepted for INT8"),
        ("UINT8", 256, "is from 0 to 256; accepted for UINT8 is from 0 to 255"),
        ("UINT8", 10**4000, "accepted for UINT8"),
        ("FP16", 65520, "accepted for FP16 is from -65504.0 to 65504.0"),
        ("FP32", 1e39, "is from 0 to 1e+39; accepted for FP32"),
        ("FP32", -(10**39), "accepted for FP32"),
        ("FP64", 10**400, "accepted for FP64"),
        ("FP32", True, "has true; accepted for FP32 are numbers"),
        ("FP32", "1", 'has "1"; accepted'),
        ("BOOL", None, "has null; accepted"),
        ("BYTES", None, "has null; accepted"),
        ("INT64", float("nan"), "has NaN; accepted for INT64 are integers"),
        ("BOOL", 1, "has 1; accepted for BOOL are true and false"),
        ("BOOL", 0.0, "has 0.0; accepted"),
        ("BOOL", "true", 'has "true"; accepted'),
        ("BYTES", 1, "has 1; accepted for BYTES are strings"),
        ("BYTES", True, "has true; accepted"),
        ("BYTES", ["a"], "has a list of 1; accepted"),
        ("BYTES", "\ud800", "half of a surrogate pair"),
    ],
)
def test_elements_of_another_type_or_out_of_range_are_refused(datatype, element, expected):
    valid = {"BOOL": False, "BYTES": ""}.get(datatype, 0)
    # numpy would make one type of several
    for data in ([valid, element], [valid] * 5000 + [element]):
        assert expected in refusal_of_input(tensor(data, [len(data)], datatype), [-1])
    assert "; accepted" in refusal_of_input(tensor([element], [1], datatype), [1])


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64"])
def test_a_missing_value_is_not_a_number_where_numbers_may_be_none(datatype):
    nan = float("nan")
    for data in ([None, 1.5, nan], [[None], [1.5], [nan]], [None] * 3):
        array = read_input(tensor(data, [3, 1], datatype), [-1, 1])
        expected = [[nan], [1.5 if 1.5 in data or [1.5] in data else nan], [nan]]
        assert_same(array, np.array(expected, DATATYPES[datatype]))
    refused = refusal_of_input(tensor([None, 10**400], [2], datatype), [-1])
    assert f"accepted for {datatype} is from" in refused


@pytest.mark.parametrize(
    ("data", "shape"),
    [
        ([1, 2, 3, 4, 5, 6], [1, 3, 2]),
        ([[[1, 2], [3, 4], [5, 6]]], [1, 3, 2]),
        ([[1, 2, 3, 4, 5, 6]], [1, 6]),
        ([1], []),
        ([], [0]),
        ([], [0, 3]),
        ([], [2, 0]),
        ([[], []], [2, 0]),
    ],
)
def test_elements_are_flat_or_nested_as_the_shape(data, shape):
    array = read_input(tensor(data, shape, "INT64"), [-1] * len(shape))
    assert_same(array, np.array(data, np.int64).reshape(shape))


@pytest.mark.parametrize(
    ("data", "shape"),
    [
        ([1, 2, 3], [2, 2]),
        ([1, 2, 3, 4, 5], [2, 2]),
        ([], [2, 2]),
        ([1], [0]),
        ([], []),
        ([[1, 2], [3]], [2, 2]),
        ([[1, 2], [3, 4, 5]], [2, 2]),
        ([[1, 2], 3], [2, 2]),
        ([[1, 2], 3, 4], [2, 2]),
        ([1, 2, [3, 4]], [2, 2]),
        ([[1, 2, 3, 4]], [2, 2]),
        ([[1], [2], [3], [4]], [2, 2]),
        ([[[1, 2], [3, 4]]], [2, 2]),
        ([[[1], [2]], [[3], [4]]], [2, 2]),
        ([[1, 2], "34"], [2, 2]),
        ([[1, 2], {"3": 4, "5": 6}], [2, 2]),
        ([[1]], [1]),
        ([[1]], []),
        ([[]], [0]),
        ([[]], [0, 0]),
        ([[], []], [0, 2]),
    ],
)
def test_elements_of_another_number_or_nesting_are_refused(data, shape):
    refused = refusal_of_input(tensor(data, shape, "INT64"), [-1] * len(shape))
    assert re.match("data of input x (has|is not nested) .*; accepted", refused)


@pytest.mark.parametrize("row", ["cd", {"c": 1, "d": 2}])
def test_strings_and_objects_are_no_rows(row):
    assert "is not nested" in refusal_of_input(tensor([["a", "b"], row], [2, 2], "BYTES"), [2, 2])


@pytest.mark.parametrize("data", [5, "5", {}, True])
def test_data_that_are_no_list_are_refused(data):
    assert "accepted is a list" in refusal_of_input(tensor(data, [1]), [1])


# names, datatypes, shapes


@pytest.mark.parametrize(
    ("shape", "accepted", "said"),
    [
        (None, [-1], "missing"),
        (2, [-1], "2"),
        ([2, 1], [-1], "[2, 1]"),
        ([], [-1], "[]"),
        ([2], [3], "[2]"),
        ([0], [3], "[0]"),
        ([1] * 33, [], "[1, 1, 1, 1, 1, 1, 1, 1, ...]"),
        ([-1], [-1], "[-1]"),
        ([-2], [-1], "[-2]"),
        ([-1], [3], "[-1]"),
        ([2.0], [-1], "[2.0]"),
        ([True], [-1], "[true]"),
        (["2"], [-1], '["2"]'),
        ([None], [-1], "[null]"),
        ([[2]], [-1], "[a list of 1]"),
        ([2**63], [-1], "[9223372036854775808]"),
        ([10**4000, 10**4000], [-1, -1], "[1000000"),
        (list(range(100)), [-1], "[0, 1, 2, 3, 4, 5, 6, 7, ...]"),
    ],
)
def test_other_shapes_are_refused(shape, accepted, said):
    refused = refusal_of_input(tensor([1, 2], shape), accepted)
    assert refused.startswith(f"shape of input x is {said}")
    assert "accepted is" in refused


@pytest.mark.parametrize("shape", [[10**12], [2**62, 2**62], [2**63 - 1] * 8])
@pytest.mark.parametrize("datatype", ["FP32", "BOOL", "BYTES"])
def test_a_huge_shape_is_refused_before_anything_is_allocated(datatype, shape):
    tracemalloc.start()
    try:
        accepted = [-1] * len(shape)
        assert "elements" in refusal_of_input(tensor([], shape, datatype), accepted)
        refused = refusal_of_input(binary_tensor(0, shape, datatype), accepted, b"")
        assert "accepted for" in refused
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@in_json_and_binary
@pytest.mark.parametrize("datatype", ["FP32", "BOOL", "BYTES"])
def test_a_dynamic_dimension_may_be_zero(datatype, binary):
    given = binary_tensor(0, [0, 3], datatype) if binary else tensor([], [0, 3], datatype)
    array = read_input(given, [-1, 3], b"" if binary else None)
    assert_same(array, np.empty((0, 3), DATATYPES[datatype]))


@pytest.mark.parametrize("shape", [[0, 10**12], [2**20, 0, 2], [2**63 - 1, 2**63 - 1, 0]])
def test_a_shape_without_elements_claims_no_memory_for_what_the_model_makes_of_it(shape):
    refused = refusal_of_input(tensor([], shape), [-1] * len(shape))
    assert "product of up to 1048576" in refused
    # but a fixed size is the model's
    assert read_input(tensor([], [0, 10**9]), [-1, 10**9]).shape == (0, 10**9)


@pytest.mark.parametrize("datatype", [None, "FP64", "fp32", "tensor(float)", "", 32, ["FP32"]])
def test_another_datatype_is_refused(datatype):
    refused = refusal({"inputs": [tensor([1], [1], datatype)]}, inputs=[SPEC])
    assert refused.startswith("datatype of input x is")


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
        (b'{"id":' + b"[" * DEEPEST_NESTING + b"]" * DEEPEST_NESTING + b"}", "nested more than"),
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


@pytest.mark.parametrize(
    ("datatype", "binary", "value"),
    [
        ("BOOL", b"\x01", True),
        ("UINT8", b"\xfe", 254),
        ("INT16", b"\xfe\xff", -2),
        ("UINT32", b"\x01\x00\x00\x02", 0x02000001),
        ("INT64", b"\x01" + b"\x00" * 6 + b"\x02", 0x0200000000000001),
        ("FP16", b"\x00\x3e", 1.5),
        ("FP32", b"\x00\x00\xc0\x3f", 1.5),
        ("FP64", b"\x00" * 6 + b"\xf8\x3f", 1.5),
        ("BYTES", b"\x03\x00\x00\x00\xc3\xbca", "üa"),
    ],
)
def test_binary_data_are_little_endian(datatype, binary, value):
    array = read_input(binary_tensor(len(binary), [1], datatype), [-1], binary)
    assert array.tolist() == [value]
    for order in "<>":  # whatever the array's own
        ordered = array.astype(array.dtype.newbyteorder(order))
        assert bytes(to_binary(ordered)) == binary


@pytest.mark.parametrize("datatype", ["FP32", "BOOL", "BYTES"])
def test_binary_data_of_another_size_are_refused(datatype):
    array = np.array(["a", "bc"], object) if datatype == "BYTES" else np.zeros(2)
    binary = bytes(to_binary(array.astype(DATATYPES[datatype])))
    size = len(binary)
    assert read_input(binary_tensor(size, [2], datatype), [-1], binary).shape == (2,)
    for said, there, shape in [
        (size - 1, binary[:-1], [2]),
        (size + 1, binary + b"x", [2]),
        (size, binary[:-1], [2]),
        (size, binary + b"x", [2]),
        (size - 1, binary, [2]),
        (size, binary, [1]),
        (size, binary, [3]),
        (0, binary, [2]),
        (0, b"", [2]),
        (-1, binary, [2]),
        (-size, binary, [2]),
        (2**70, binary, [2]),
        (float(size), binary, [2]),
        (str(size), binary, [2]),
        (True, b"\1", [1]),
        (-4, binary, [0]),
    ]:
        refused = refusal_of_input(binary_tensor(said, shape, datatype), [-1], there)
        assert "; accepted" in refused, said


def test_binary_data_without_their_header_are_refused_with_its_name():
    body = json.dumps({"inputs": [binary_tensor(4, [1])]}).encode()
    with pytest.raises(BadRequest, match="Inference-Header-Content-Length"):
        read_request(body, None, [SPEC], [])


def test_the_binary_data_of_an_input_do_not_begin_within_the_json():
    given = [binary_tensor(-2, [0], "BYTES"), binary_tensor(2, [2], "INT8", "y")]
    specs = [TensorSpec("x", "BYTES", (-1,)), TensorSpec("y", "INT8", (2,))]
    assert "binary_data_size of input x is -2; accepted" in refusal({"inputs": given}, b"", specs)


def test_bytes_that_no_input_takes_are_refused():
    refused = refusal({"inputs": [tensor([1], [1])]}, b"four", [SPEC])
    assert refused.startswith("the body has 4 bytes more; accepted")


def test_data_are_json_or_binary_and_not_both():
    both = {**binary_tensor(4, [1]), "data": [1]}
    assert "both data and binary_data_size" in refusal_of_input(both, [1], b"\0" * 4)
    both = {**binary_tensor(0, [0]), "data": []}
    assert "both data and binary_data_size" in refusal_of_input(both, [-1], b"")


def test_a_bool_is_a_byte_of_0_or_1():
    given = binary_tensor(3, [3], "BOOL")
    assert read_input(given, [3], b"\1\0\1").tolist() == [True, False, True]
    assert "has a byte of 255; accepted for BOOL are 0 and 1" in refusal_of_input(
        given, [3], b"\1\0\xff"
    )


@pytest.mark.parametrize(
    ("binary", "expected"),
    [
        (b"\x01\x00\x00", "ends within element 0"),
        (b"\x02\x00\x00\x00a", "ends within element 0"),
        (b"\xff\xff\xff\xffa", "ends within element 0"),
        (b"\x01\x00\x00\x00ab", "ends within element 1"),
        (b"\x01\x00\x00\x00a\x09\x00\x00\x00", "ends within element 1"),
        (b"\x01\x00\x00\x00\xff\x00\x00\x00\x00", "is not UTF-8 in element 0"),
        (b"\x03\x00\x00\x00\xed\xa0\x80\x00\x00\x00\x00", "is not UTF-8 in element 0"),
        (b"\x00\x00\x00\x00", "has 1 elements; accepted for its shape are 2"),
        (b"\x00\x00\x00\x00" * 3, "has 3 elements; accepted for its shape are 2"),
    ],
)
def test_bytes_that_are_no_strings_are_refused(binary, expected):
    given = binary_tensor(len(binary), [2], "BYTES")
    refused = refusal_of_input(given, [2], binary)
    assert refused.startswith(f"binary data of input x {expected}")


def test_the_length_of_a_string_is_not_read_from_the_next_input():
    given = [binary_tensor(3, [1], "BYTES"), binary_tensor(2, [2], "BOOL", "flags")]
    specs = [TensorSpec("x", "BYTES", (1,)), TensorSpec("flags", "BOOL", (2,))]
    assert "ends within element 0" in refusal({"inputs": given}, b"\0\0\0\0\0", specs)


def test_binary_floats_are_any():
    binary = struct.pack("<2f", float("nan"), float("-inf"))
    assert read_input(binary_tensor(8, [2]), [2], binary).tobytes() == binary


# the answer


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
