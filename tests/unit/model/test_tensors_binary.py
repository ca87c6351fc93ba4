"""Binary data: sizes, order of bytes, strings."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest

from app.model.datatypes import DATATYPES, BadRequest, to_binary
from app.model.tensors import TensorSpec, read_request
from tests.support.tensors import SPEC, binary_tensor, read_input, refusal, refusal_of_input, tensor


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
