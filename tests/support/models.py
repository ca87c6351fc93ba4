"""Small ONNX models, made to order."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

# what onnxruntime 1.23, the last for Python 3.10, reads
IR_VERSION, OPSET = 10, 18


def as_bytes(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    weights: Sequence[onnx.TensorProto] = (),
) -> bytes:
    graph = helper.make_graph(nodes, "graph", inputs, outputs, list(weights))
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(graph, ir_version=IR_VERSION, opset_imports=[opset])
    return bytes(model.SerializeToString())


def adding(number: float, megabytes: float = 0) -> bytes:
    """`y = x + number`, for any number of rows of two; where it is to be large, with a table of
    zeros that it looks one up in, by an index that onnxruntime cannot know before."""
    table = np.zeros((max(int(megabytes * 2**18), 2) // 2, 2), np.float32)
    weights = [
        numpy_helper.from_array(np.array([number, number], np.float32), "number"),
        numpy_helper.from_array(np.array(0, np.float32), "zero"),
        numpy_helper.from_array(np.array([1]), "second axis"),
        numpy_helper.from_array(table, "table"),
    ]
    nodes = [
        helper.make_node("Mul", ["x", "zero"], ["zeros"]),
        helper.make_node("ReduceSum", ["zeros", "second axis"], ["sum"], keepdims=0),
        helper.make_node("Cast", ["sum"], ["index"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "index"], ["nothing"]),
        helper.make_node("Add", ["x", "number"], ["added"]),
        helper.make_node("Add", ["added", "nothing"], ["y"]),
    ]
    return as_bytes(nodes, [_rows("x")], [_rows("y")], weights)


def renumber(model: bytearray, number: float, other: float) -> None:
    """Make of what `adding` gives for one number, in place, what it gives for another."""
    before, after = (np.array([n, n], np.float32).tobytes() for n in (number, other))
    at = model.index(before)
    model[at : at + len(before)] = after


def calculating(size: int) -> bytes:
    """`y = x`, after the product of two matrices of this size, which is not needed for it."""
    shape = numpy_helper.from_array(np.array([size, size]), "shape")
    zero = numpy_helper.from_array(np.array(0, np.float32), "zero")
    nodes = [
        helper.make_node("Mul", ["x", "zero"], ["zeros"]),
        helper.make_node("ReduceSum", ["zeros"], ["nothing"], keepdims=0),
        helper.make_node("Expand", ["nothing", "shape"], ["matrix"]),
        helper.make_node("MatMul", ["matrix", "matrix"], ["product"]),
        helper.make_node("ReduceMax", ["product"], ["largest"], keepdims=0),
        helper.make_node("Mul", ["largest", "zero"], ["still_nothing"]),
        helper.make_node("Add", ["x", "still_nothing"], ["y"]),
    ]
    return as_bytes(nodes, [_rows("x")], [_rows("y")], [shape, zero])


def passing_on(datatype: int) -> bytes:
    """`y = x`, for any number of elements of a type."""
    x, y = (helper.make_tensor_value_info(name, datatype, ["n"]) for name in "xy")
    return as_bytes([helper.make_node("Identity", ["x"], ["y"])], [x], [y])


def rounding_to_bfloat16() -> bytes:
    """`y` is `x` in less precision, and `x_again` what it was."""
    x, again = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in ("x", "x_again")
    )
    y = helper.make_tensor_value_info("y", TensorProto.BFLOAT16, ["n"])
    nodes = [
        helper.make_node("Cast", ["x"], ["y"], to=TensorProto.BFLOAT16),
        helper.make_node("Identity", ["x"], ["x_again"]),
    ]
    return as_bytes(nodes, [x], [y, again])


def taking_rows_of_two_only() -> bytes:
    """`y = x + 1`, of which onnxruntime does not know beforehand how many columns it takes."""
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", "columns"]) for name in "xy"
    )
    shape = numpy_helper.from_array(np.array([-1, 2]), "shape")
    one = numpy_helper.from_array(np.array([[1, 1]], np.float32), "one")
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["pairs"]),
        helper.make_node("Add", ["pairs", "one"], ["y"]),
    ]
    return as_bytes(nodes, [x], [y], [shape, one])


def filling() -> bytes:
    """`y` is as many zeros as `x` says."""
    x = helper.make_tensor_value_info("x", TensorProto.INT64, [1])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])
    return as_bytes([helper.make_node("ConstantOfShape", ["x"], ["y"])], [x], [y])


def ending_its_process() -> bytes:
    """A model that onnxruntime cannot load and live: it computes -2**31 / -1 beforehand."""
    numbers = [np.array([-(2**31)], np.int32), np.array([-1], np.int32)]
    weights = [numpy_helper.from_array(n, name) for n, name in zip(numbers, "ab", strict=True)]
    y = helper.make_tensor_value_info("y", TensorProto.INT32, [1])
    return as_bytes([helper.make_node("Div", ["a", "b"], ["y"])], [], [y], weights)


def never_ending() -> bytes:
    """A model whose run takes a few thousand years."""
    weights = [numpy_helper.from_array(np.array(2**62), "often")]
    body = _passing_on_what_comes(TensorProto.FLOAT, ["rows", 2])
    loop = helper.make_node("Loop", ["often", "", "x"], ["y"], body=body)
    return as_bytes([loop], [_rows("x")], [_rows("y")], weights)


def looping() -> bytes:
    """`y = x`, after so many operations as `x` says."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.INT64, [1]) for name in "xy")
    body = _passing_on_what_comes(TensorProto.INT64, [1])
    return as_bytes([helper.make_node("Loop", ["x", "", "x"], ["y"], body=body)], [x], [y])


def _passing_on_what_comes(datatype: int, shape: Sequence[int | str]) -> onnx.GraphProto:
    """The body of a loop that goes on."""
    number = helper.make_tensor_value_info("number", TensorProto.INT64, [])
    goes_on, still = (
        helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in ("goes_on", "still")
    )
    before, after = (
        helper.make_tensor_value_info(name, datatype, shape) for name in ("before", "after")
    )
    nodes = [
        helper.make_node("Identity", ["goes_on"], ["still"]),
        helper.make_node("Identity", ["before"], ["after"]),
    ]
    return helper.make_graph(nodes, "body", [number, goes_on, before], [still, after])


def of_any_rank() -> bytes:
    """`y = -x`, for an x of any shape."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xy")
    return as_bytes([helper.make_node("Neg", ["x"], ["y"])], [x], [y])


def of_many(elements: int) -> bytes:
    """`y = -x`, for an x of so many elements and no others."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [elements]) for name in "xy")
    return as_bytes([helper.make_node("Neg", ["x"], ["y"])], [x], [y])


def with_external_data() -> bytes:
    """A model whose weights are to be read from a file beside it."""
    weights = numpy_helper.from_array(np.zeros((2,), np.float32), "number")
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="model.onnx")
    nodes = [helper.make_node("Add", ["x", "number"], ["y"])]
    return as_bytes(nodes, [_rows("x")], [_rows("y")], [weights])


def _rows(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 2])


def message(
    model: bytes, version: str = "1", name: str = "m", uri: str | None = None, **changes: Any
) -> dict[str, Any]:
    """The state that names a model: where it is, or with the model itself."""
    where = {"uri": uri} if uri else {"data": base64.b64encode(model).decode()}
    sha256 = hashlib.sha256(model).hexdigest()
    return {"name": name, "version": version, "sha256": sha256, **where, **changes}
