"""Elements and shapes: what is accepted, and what is refused with its reason."""

from __future__ import annotations

import re
import tracemalloc

import numpy as np
import pytest

from app.model.datatypes import DATATYPES
from tests.support.tensors import (
    SPEC,
    assert_same,
    binary_tensor,
    in_json_and_binary,
    read_input,
    refusal,
    refusal_of_input,
    tensor,
)


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
        ("INT64", -(2**63) - 1, "are integers from -9223372036854775808 to"),
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
