"""The search for external data against what the package `onnx` says."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from app.message import no_checkpoint
from app.message_errors import InvalidMessage
from app.model import external_data
from app.model.external_data import DEEPEST_NESTING, MESSAGES, names_external_data


@pytest.fixture(scope="module")
def says(tmp_path_factory):
    """What is said of the bytes of a model: a bool, or the reason of an error."""
    path = tmp_path_factory.mktemp("models") / "model.onnx"

    def say(data: bytes):
        path.write_bytes(data)
        try:
            return names_external_data(path, no_checkpoint)
        except InvalidMessage as error:
            return error.reason

    return say


def inner_messages(message):
    """Each message in it at any depth, and itself."""
    yield message
    for field, value in message.ListFields():
        if field.message_type:
            for inner in [value] if hasattr(value, "ListFields") else value:
                yield from inner_messages(inner)


def is_external(model) -> bool:
    return any(
        tensor.data_location == TensorProto.EXTERNAL or len(tensor.external_data)
        for tensor in inner_messages(model)
        if isinstance(tensor, TensorProto)
    )


def linked_to_tensors(descriptor, found):
    """Collect, by message, the fields that lead to a tensor."""
    known = {descriptor.name}
    waiting = [descriptor]
    while waiting:
        message = waiting.pop()
        found[message.name] = {
            field.number: field.message_type.name for field in message.fields if field.message_type
        }
        for field in message.fields:
            if field.message_type and field.message_type.name not in known:
                known.add(field.message_type.name)
                waiting.append(field.message_type)
    leading = {"TensorProto"}
    while more := {n for n, inner in found.items() if leading & {*inner.values()}} - leading:
        leading |= more
    return {
        name: {number: inner for number, inner in found[name].items() if inner in leading}
        for name in leading
    }


def test_the_table_is_that_of_the_installed_onnx():
    assert linked_to_tensors(onnx.ModelProto.DESCRIPTOR, {}) == MESSAGES
    fields = TensorProto.DESCRIPTOR.fields_by_name
    assert fields["external_data"].number == external_data.EXTERNAL_DATA
    assert fields["data_location"].number == external_data.DATA_LOCATION
    assert TensorProto.DEFAULT == 0


def paths(kind="ModelProto", seen=()):
    """Every way from a message to a tensor that passes no kind of message twice."""
    if kind == "TensorProto":
        yield []
    for number, inner in MESSAGES[kind].items():
        if inner not in seen:
            for rest in paths(inner, (*seen, kind)):
                yield [number, *rest]


def tensor_at(model, path):
    message = model
    for number in path:
        field = message.DESCRIPTOR.fields_by_number[number]
        inner = getattr(message, field.name)
        message = inner.add() if hasattr(inner, "add") else inner
        message.SetInParent()
    return message


@pytest.mark.parametrize("path", [*paths(), [7, 1, 5, 6, 1, 5, 11, 5]], ids=str)
def test_external_data_is_found_wherever_it_may_be(says, path):
    model = onnx.ModelProto(ir_version=10, doc_string="x" * 200)
    tensor = tensor_at(model, path)
    tensor.raw_data = bytes(1000)
    assert says(model.SerializeToString()) is False
    tensor.data_location = TensorProto.DEFAULT
    assert says(model.SerializeToString()) is False
    tensor.data_location = TensorProto.EXTERNAL
    assert says(model.SerializeToString()) is True
    tensor.ClearField("data_location")
    tensor.external_data.add(key="location", value="/etc/passwd")
    assert says(model.SerializeToString()) is True


def real_model() -> onnx.ModelProto:
    weights = numpy_helper.from_array(np.arange(12, dtype=np.float32), "w")
    inner = helper.make_graph([], "inner", [], [], [weights])
    nodes = [
        helper.make_node("Constant", [], ["c"], value=weights),
        helper.make_node("If", ["c"], ["d"], then_branch=inner, else_branch=inner),
        helper.make_node("Conv", ["x", "w"], ["y"], kernel_shape=[3, 3], auto_pad="VALID"),
        helper.make_node("Elu", ["x"], ["z"], alpha=0.5, axis=-1),
    ]
    nodes[-1].attribute[0].doc_string = "field 13"
    floats = helper.make_tensor("f", TensorProto.FLOAT, [3], [1.0, 2.0, 3.0])
    strings = helper.make_tensor("s", TensorProto.STRING, [1], [b"text"])
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])
    graph = helper.make_graph(nodes, "graph", [x], [x], [weights, floats, strings])
    return helper.make_model(graph, producer_name="test", doc_string="ä")


def external_model() -> onnx.ModelProto:
    model = real_model()
    onnx.external_data_helper.set_external_data(model.graph.initializer[0], "weights.bin")
    return model


def test_a_model_of_onnx_itself_is_told_right(says):
    assert says(real_model().SerializeToString()) is False
    assert says(external_model().SerializeToString()) is True
    assert says(b"") is False


def test_fields_that_are_not_known_are_passed_over(says):
    assert says(b"\x70\x01") is False
    assert says(b"\x09" + bytes(8) + b"\x0d" + bytes(4) + b"\x70\x01") is False


@pytest.mark.parametrize(
    "data",
    [
        b"not a model",
        b"\x3a",
        b"\x3a\x7f",
        b"\x3a\xff\xff\xff\xff\x0fx",
        b"\x3a" + b"\xff" * 20,
        b"\x3a\x02\x0a\x03abc",
        b"\x3a\x02\x08\xff\x01",
        b"\x00\x00",
        b"\x0b\x0c",
        b"\x0d123",
        b"\x09123",
        b"\x80\x80\x80\x80\x10\x00",
        b"\x18\x00\x00\x00ORTM",
        b"\x08\x0a\x12\x04ORTM",
    ],
)
def test_what_is_no_model_is_told(says, data):
    assert says(data) == "model"


def varint(value: int, longer: int = 0) -> bytes:
    """Maybe with more bytes than are needed, which protobuf takes all the same."""
    parts = []
    while value > 127 or longer > 0:
        parts.append(value & 127 | 128)
        value, longer = value >> 7, longer - 1
    return bytes([*parts, value])


def nested(depth: int) -> bytes:
    """A graph in a node's attribute, in a graph, ..."""
    data = b""
    for number in reversed([7, *[1, 5, 6] * depth][:depth]):
        data = varint(number << 3 | 2) + varint(len(data)) + data
    return data


def test_nesting_has_a_limit(says):
    assert says(nested(DEEPEST_NESTING)) is False
    assert says(nested(DEEPEST_NESTING + 1)) == "model"
    assert says(nested(10_000)) == "model"


@st.composite
def damaged_models(draw) -> bytes:
    data = bytearray(draw(st.sampled_from([real_model(), external_model()])).SerializeToString())
    for _ in range(draw(st.integers(0, 5))):
        position = draw(st.integers(0, len(data)))
        data[position : position + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)


@st.composite
def wire_formats(draw, depth=6) -> bytes:
    data = b""
    for _ in range(draw(st.integers(0, 4))):
        number = draw(st.sampled_from([1, 2, 5, 6, 7, 10, 11, 13, 14, 15, 20, 22, 23, 25]))
        wire_type = draw(st.sampled_from([2, 2, 2, 2, 0, 0, 1, 5, 3, 4]))
        data += varint(number << 3 | wire_type, draw(st.integers(0, 1)))
        if wire_type == 0:
            value = draw(st.sampled_from([0, 1, 2, 127, 2**32, 2**32 + 1, 2**63, 2**64 - 1]))
            data += varint(value, draw(st.integers(0, 3)))
        elif wire_type == 2:
            inner = draw(wire_formats(depth - 1)) if depth else b""
            data += varint(len(inner), draw(st.integers(0, 1))) + inner
        else:
            data += bytes({1: 8, 5: 4}.get(wire_type, 0))
    return data


@settings(max_examples=5 * settings().max_examples)
@given(st.one_of(damaged_models(), wire_formats(), st.binary()))
def test_what_onnx_would_read_from_another_file_is_never_missed(says, data):
    said = says(data)
    assert said in (True, False, "model")
    try:
        model = onnx.ModelProto.FromString(data)
    except DecodeError:
        return
    if is_external(model):
        assert said is not False


def test_the_search_can_be_ended(tmp_path, monkeypatch):
    class Ended(Exception):
        pass

    def checkpoint():
        raise Ended

    monkeypatch.setattr(external_data, "FIELDS_BETWEEN_LOOKS", 10)
    (tmp_path / "model.onnx").write_bytes(b"\x08\x01" * 10)
    with pytest.raises(Ended):
        names_external_data(tmp_path / "model.onnx", checkpoint)
