"""Finds out whether an ONNX model has data in other files, without reading the data in its own.

The package `onnx` would tell as well, but it holds the GIL for all of a parse, 30 to 56 ms for a
model of 50 MB, and nothing is answered meanwhile.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.message_errors import InvalidMessage

# by the numbers of their fields, what leads from a model to its tensors, as in onnx.proto
MESSAGES: dict[str, dict[int, str]] = {
    "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: "TensorProto",
        6: "GraphProto",
        10: "TensorProto",
        11: "GraphProto",
        22: "SparseTensorProto",
        23: "SparseTensorProto",
    },
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "TensorProto": {},
}
EXTERNAL_DATA = 13
DATA_LOCATION = 14

DEEPEST_NESTING = 100  # protobuf's own limit
FIELDS_BETWEEN_LOOKS = 2**17

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
LARGEST_TAG = 2**32 - 1


def names_external_data(path: Path, checkpoint: Callable[[], None]) -> bool:
    """Whether any tensor of the ONNX model at `path` is, or might be, in another file.

    `checkpoint` is called several times a second; what it raises ends the search.

    Raises:
        InvalidMessage: with reason `model`: it is no protobuf, or nested too deep.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if not size:
            return False
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            # onnxruntime would take it for its own format, whose data may be elsewhere as well
            if data[4:8] == b"ORTM":
                raise InvalidMessage("model", "accepted is ONNX; it is of onnxruntime's own format")
            try:
                return _search(data, size, checkpoint)
            except IndexError:
                raise _no_protobuf(size) from None


def _search(data: mmap.mmap, size: int, checkpoint: Callable[[], None]) -> bool:
    kinds = _linked()
    kind, tensor = kinds["ModelProto"], kinds["TensorProto"]
    position, end = 0, size
    outer: list[tuple[int, dict[int, Any]]] = []
    fields = 0
    while True:
        if position >= end:
            if position > end:
                raise _no_protobuf(position)
            if not outer:
                return False
            end, kind = outer.pop()
            continue
        fields += 1
        if not fields % FIELDS_BETWEEN_LOOKS:
            checkpoint()
        tag = data[position]
        position += 1
        if tag > 127:
            tag, position = _varint(data, position - 1)
        number, wire_type = tag >> 3, tag & 7
        if not number or tag > LARGEST_TAG:
            raise _no_protobuf(position)
        if wire_type == BYTES:
            length = data[position]
            position += 1
            if length > 127:
                length, position = _varint(data, position - 1)
            inner = kind.get(number)
            if inner is not None:
                if len(outer) == DEEPEST_NESTING:
                    detail = f"nested deeper than {DEEPEST_NESTING}"
                    raise InvalidMessage("model", detail)
                outer.append((end, kind))
                end, kind = position + length, inner
            elif number == EXTERNAL_DATA and kind is tensor:
                return True
            else:
                position += length
        elif wire_type == VARINT:
            value, position = _varint(data, position)
            if value and number == DATA_LOCATION and kind is tensor:
                return True
        elif wire_type == FIXED32:
            position += 4
        elif wire_type == FIXED64:
            position += 8
        else:  # a group, which ONNX has none of, or nothing at all
            raise _no_protobuf(position)


def _varint(data: mmap.mmap, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
    raise _no_protobuf(position)


def _linked() -> dict[str, dict[int, Any]]:
    kinds: dict[str, dict[int, Any]] = {name: {} for name in MESSAGES}
    for name, fields in MESSAGES.items():
        kinds[name].update({number: kinds[inner] for number, inner in fields.items()})
    return kinds


def _no_protobuf(position: int) -> InvalidMessage:
    return InvalidMessage("model", f"accepted is ONNX; it is no protobuf at byte {position}")
