"""The elements of one tensor: from JSON and from binary data to numpy, and back."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from app.model.json_body import LongList

Array = npt.NDArray[Any]

# by the protocol's names; elements of BYTES are str, because onnxruntime would take the repr of bytes
DATATYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    **{f"UINT{bits}": np.dtype(f"u{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"INT{bits}": np.dtype(f"i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": np.dtype(f"f{bits // 8}") for bits in (16, 32, 64)},
    "BYTES": np.dtype(np.object_),
    "BF16": np.dtype("V2"),  # numpy knows no such numbers
}

# what is not here, such as sequences and maps, cannot be served
DATATYPE_OF_ONNX = {
    "tensor(bool)": "BOOL",
    **{f"tensor(uint{bits})": f"UINT{bits}" for bits in (8, 16, 32, 64)},
    **{f"tensor(int{bits})": f"INT{bits}" for bits in (8, 16, 32, 64)},
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
    "tensor(bfloat16)": "BF16",
}

# what an element is in JSON, by numpy's kind of type
_IN_JSON: dict[str, tuple[set[type], str]] = {
    "b": ({bool}, "true and false"),
    "u": ({int}, "integers"),
    "i": ({int}, "integers"),
    # a missing value is NaN, as Triton and MLServer have it
    "f": ({int, float, type(None)}, "numbers and null"),
    "O": ({str}, "strings"),
}
# beside its letters, with its places in a list and in an array
BYTES_PER_STRING = 72
# elements that are written at once: who writes holds the GIL
PIECE = 2**17
BINARY_ONLY = "accepted for BF16 is binary data, for the protocol has no JSON for it"
NOT_NESTED_SO = (
    "not nested as its shape says; accepted are the elements in row-major order, nested so or not "
    "at all"
)
_LENGTH = struct.Struct("<I")


class BadRequest(ValueError):
    """A request that cannot be answered; the text says what was given and what is accepted."""


def size_of(array: Array) -> int:
    """How much memory it takes, in bytes; of strings nearly so."""
    strings = array.ravel().tolist() if array.dtype.kind == "O" else ()
    return int(array.nbytes) + sum(map(len, strings)) + BYTES_PER_STRING * len(strings)


def from_json(
    data: list[Any] | LongList,
    shape: Sequence[int],
    datatype: str,
    where: str,
    hold: Callable[[int], None],
) -> Array:
    """
    Args:
        hold: called with how much memory is about to be taken, in bytes.
    """
    dtype = DATATYPES[datatype]
    if dtype.kind == "V":
        raise BadRequest(f"{where} has data; {BINARY_ONLY}")
    if isinstance(data, LongList):
        return _from_pieces(data, shape, datatype, where, hold)
    flat = _flat(data, shape, where) if data and type(data[0]) is list else data
    _require_count(len(flat), shape, f"data of {where}")
    hold(len(flat) * dtype.itemsize)
    return _as_array(flat, datatype, where).reshape(shape)


def _from_pieces(
    data: LongList,
    shape: Sequence[int],
    datatype: str,
    where: str,
    hold: Callable[[int], None],
) -> Array:
    if 0 not in shape:  # else there are empty lists, between which there are commas too
        _require_count(data.count, shape, f"data of {where}")
    dtype = DATATYPES[datatype]
    hold(math.prod(shape) * dtype.itemsize)
    array = np.empty(math.prod(shape), dtype)
    position = 0
    try:
        for piece, piece_shape in data.pieces(shape, hold):
            flat = _flat(piece, piece_shape, where) if len(piece_shape) > 1 else piece
            begin, position = position, position + len(flat)
            if position > array.size:
                _require_count(data.count, shape, f"data of {where}")
            array[begin:position] = _as_array(flat, datatype, where)
    except BadRequest:
        raise
    except ValueError as error:
        raise BadRequest(f"data of {where} is not JSON, or {NOT_NESTED_SO}: {error}") from None
    _require_count(position, shape, f"data of {where}")
    return array.reshape(shape)


def _as_array(flat: list[Any], datatype: str, where: str) -> Array:
    dtype = DATATYPES[datatype]
    types, accepted = _IN_JSON[dtype.kind]
    if not types.issuperset(map(type, flat)):
        if dtype.kind in "ui":  # what no 64 bits can hold has become a float
            accepted += f" from {np.iinfo(dtype).min} to {np.iinfo(dtype).max}"
        wrong = next(element for element in flat if type(element) not in types)
        raise BadRequest(
            f"data of {where} has {summary(wrong)}; accepted for {datatype} are {accepted}"
        )
    if dtype.kind == "O" and not is_utf8("".join(flat)):
        raise BadRequest(
            f"data of {where} has half of a surrogate pair; accepted is what UTF-8 can spell"
        )
    try:
        with np.errstate(over="raise"):
            return np.array(flat, dtype)
    except (OverflowError, FloatingPointError):
        limits = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
        numbers = [number for number in flat if number is not None]
        raise BadRequest(
            f"data of {where} is from {summary(min(numbers))} to {summary(max(numbers))}; accepted "
            f"for {datatype} is from {limits.min} to {limits.max}"
        ) from None


def to_json(array: Array, where: str) -> list[bytes]:
    """Give the elements in pieces, those of floating point with as few digits as are read as the
    same."""
    if array.dtype.kind == "V":
        raise BadRequest(f"{where} is asked for as JSON; {BINARY_ONLY}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise BadRequest(
            f"{where} has NaN or infinity, which JSON cannot say; accepted is to ask for that "
            'output with "parameters": {"binary_data": true}'
        )
    flat = array.ravel()
    pieces: list[bytes] = []
    for start in range(0, flat.size, PIECE):
        piece = flat[start : start + PIECE]
        elements = piece.tolist() if piece.dtype.kind == "O" else piece
        pieces += [b",", orjson.dumps(elements, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]]
    return pieces[1:]


def from_binary(
    body: bytes,
    start: int,
    size: int,
    shape: Sequence[int],
    datatype: str,
    where: str,
    hold: Callable[[int], None],
) -> Array:
    """
    Args:
        hold: called with how much memory is about to be taken, in bytes.
    """
    dtype = DATATYPES[datatype].newbyteorder("<")
    if dtype.kind == "O":
        hold(size + BYTES_PER_STRING * (size // _LENGTH.size))
        return np.array(_strings(body, start, size, shape, where), dtype).reshape(shape)
    expected = math.prod(shape) * dtype.itemsize
    if size != expected:
        raise BadRequest(
            f"binary_data_size of {where} is {size}; accepted for its shape and {datatype} is "
            f"{expected}"
        )
    array: Array = np.ndarray(shape, dtype, body, start)
    if dtype.kind == "b" and array.view(np.uint8).max(initial=0) > 1:
        raise BadRequest(
            f"binary data of {where} has a byte of {array.view(np.uint8).max()}; accepted for BOOL "
            "are 0 and 1"
        )
    # onnxruntime takes the memory as it is, whatever its order and alignment
    if dtype.isnative and array.flags.aligned:
        return array
    hold(size)
    return array.astype(DATATYPES[datatype])


def to_binary(array: Array) -> memoryview:
    if array.dtype.kind != "O":
        return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).data
    strings = [text.encode() for text in array.ravel().tolist()]
    return memoryview(
        b"".join(chain.from_iterable((_LENGTH.pack(len(text)), text) for text in strings))
    )


def is_utf8(text: str) -> bool:
    """Whether UTF-8 can spell it: not half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def summary(value: Any) -> str:
    """What was given, on part of a line."""
    if isinstance(value, (list, dict)):
        return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value)}"
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:60]} ..."


def _flat(data: list[Any], shape: Sequence[int], where: str) -> list[Any]:
    level: list[Any] = [data]
    for size in shape:
        if not ({list}.issuperset(map(type, level)) and {size}.issuperset(map(len, level))):
            raise BadRequest(f"data of {where} is {NOT_NESTED_SO}")
        level = list(chain.from_iterable(level))
    return level


def _strings(body: bytes, start: int, size: int, shape: Sequence[int], where: str) -> list[str]:
    end = start + size
    strings: list[str] = []
    while start < end:
        content = start + _LENGTH.size
        start = content + _LENGTH.unpack_from(body, start)[0] if content <= end else content
        if start > end:
            raise BadRequest(
                f"binary data of {where} ends within element {len(strings)}; accepted is for each "
                "its length in 4 bytes, the lowest first, and as many bytes"
            )
        try:
            strings.append(str(body[content:start], "utf-8"))
        except UnicodeDecodeError:
            raise BadRequest(
                f"binary data of {where} is not UTF-8 in element {len(strings)}; accepted are "
                "strings, for onnxruntime has no others"
            ) from None
    _require_count(len(strings), shape, f"binary data of {where}")
    return strings


def _require_count(count: int, shape: Sequence[int], where: str) -> None:
    if count != math.prod(shape):
        raise BadRequest(
            f"{where} has {count} elements; accepted for its shape are {math.prod(shape)}"
        )
