"""Requests for inference, and arrays, for the tests of tensors."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from app.model.datatypes import DATATYPES, Array, BadRequest
from app.model.tensors import InferRequest, TensorSpec, read_request

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


def arrays_of(datatype: str, finite: bool) -> st.SearchStrategy[Array]:
    dtype = DATATYPES[datatype]
    elements = strings if datatype == "BYTES" else npst.from_dtype(dtype)
    if finite and dtype.kind == "f":
        elements = npst.from_dtype(dtype, allow_nan=False, allow_infinity=False)
    return npst.arrays(
        dtype, npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4), elements=elements
    )


def tensor(
    data: Any, shape: Any, datatype: Any = "FP32", name: Any = "x", **members: Any
) -> dict[str, Any]:
    return {"name": name, "shape": shape, "datatype": datatype, "data": data, **members}


def binary_tensor(size: Any, shape: Any, datatype: Any = "FP32", name: Any = "x") -> dict[str, Any]:
    return {
        "name": name,
        "shape": shape,
        "datatype": datatype,
        "parameters": {"binary_data_size": size},
    }


def read(
    document: Any,
    binary: bytes | None = None,
    inputs: Sequence[TensorSpec] = (),
    outputs: Sequence[TensorSpec] = (),
) -> InferRequest:
    head = json.dumps(document).encode()
    return read_request(
        head + (binary or b""), None if binary is None else len(head), inputs, outputs
    )


def read_input(given: Any, accepted_shape: Iterable[int], binary: bytes | None = None) -> Array:
    spec = TensorSpec("x", given["datatype"], tuple(accepted_shape))
    return read({"inputs": [given]}, binary, [spec]).inputs["x"]


def refusal(*args: Any, **kwargs: Any) -> str:
    with pytest.raises(BadRequest) as caught:
        read(*args, **kwargs)
    return str(caught.value)


def refusal_of_input(given: Any, accepted_shape: Iterable[int], binary: bytes | None = None) -> str:
    with pytest.raises(BadRequest) as caught:
        read_input(given, accepted_shape, binary)
    return str(caught.value)


def assert_same(read_array: Array, array: Array) -> None:
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
        return int(onnx.TensorProto.STRING)
    return onnx.helper.np_dtype_to_tensor_dtype(DATATYPES[datatype])
