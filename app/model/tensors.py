"""Bodies of the Open Inference Protocol over HTTP, with tensors as JSON and as binary data.

The protocol is KServe's V2, the binary data Triton's extension `binary_tensor_data`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import orjson

from app.model.datatypes import (
    DATATYPES,
    Array,
    BadRequest,
    from_binary,
    from_json,
    summary,
    to_binary,
    to_json,
)
from app.model.json_body import LongList, parse_body
from app.strict_json import canonical_json

# a shape with a 0 needs no data, but the model may allocate what its other sizes say
LARGEST_EMPTY = 2**20
JSON_SIZE_HEADER = "Inference-Header-Content-Length"
LARGEST_SIZE = 2**63 - 1
HIGHEST_RANK = 32  # what every numpy has room for

Kind = TypeVar("Kind", dict[str, Any], list[Any], str, int, bool)
_KINDS: dict[type, str] = {
    dict: "an object",
    list: "a list",
    str: "a string",
    int: "an integer",
    bool: "true or false",
}
_NAMES = {dtype: name for name, dtype in DATATYPES.items()}


@dataclass(frozen=True)
class TensorSpec:
    """What a model says of an input or output.

    Attributes:
        datatype: one of `DATATYPES`.
        shape: -1 for a dynamic dimension; empty for a scalar, and where the model does not say
            how many there are, which onnxruntime tells apart only when it is asked.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class InferRequest:
    """What a model is asked.

    Attributes:
        inputs: read-only where they are views of the body.
        outputs: those that are asked for, in order, and whether as binary data.
    """

    id: str | None
    inputs: dict[str, Array]
    outputs: dict[str, bool]


def read_request(
    body: bytes,
    json_size: int | None,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    hold: Callable[[int], None] = lambda size: None,
) -> InferRequest:
    """Read what a model with these inputs and outputs is asked.

    A member that is null counts as missing, and one that is not known is ignored.

    Args:
        json_size: of the header `JSON_SIZE_HEADER`, if there is one.
        hold: called with how much memory is about to be taken, in bytes.

    Raises:
        BadRequest: and no other exception but those of `hold`, whatever the body.
    """
    document, long_lists = _document(body, json_size, hold)
    identity = _member(document, "id", str, "the request")
    wanted = _wanted(document, [spec.name for spec in outputs])
    specs = {spec.name: spec for spec in inputs}
    arrays: dict[str, Array] = {}
    position = len(body) if json_size is None else json_size
    for tensor in _member(document, "inputs", list, "the request") or []:
        name = _name(tensor, "input", specs, arrays)
        where, spec = f"input {name}", specs[name]
        shape = _shape(tensor, spec, where)
        data = _data(tensor, long_lists, where)
        size = _member(_parameters(tensor, where), "binary_data_size", int, where)
        if size is None and data is not None:
            arrays[name] = from_json(data, shape, spec.datatype, where, hold)
        elif size is not None and data is None:
            left = len(body) - position
            if not 0 <= size <= left:
                raise BadRequest(
                    f"binary_data_size of {where} is {summary(size)}; accepted is up to the {left} "
                    f"bytes after the JSON, whose end {JSON_SIZE_HEADER} says"
                )
            arrays[name] = from_binary(body, position, size, shape, spec.datatype, where, hold)
            position += size
        else:
            raise BadRequest(
                f"{where} has {'neither data nor' if data is None else 'both data and'} "
                "binary_data_size; accepted is one of them"
            )
    if position != len(body):
        raise BadRequest(
            f"the body has {len(body) - position} bytes more; accepted are those of the JSON and "
            "of each binary_data_size"
        )
    if len(arrays) != len(specs):
        missing = ", ".join(name for name in specs if name not in arrays)
        raise BadRequest(f"missing are the inputs {missing}; accepted is a request with all inputs")
    return InferRequest(identity, arrays, wanted)


def write_response(
    head: Mapping[str, str], outputs: Mapping[str, Array], binary: Mapping[str, bool]
) -> tuple[bytes, int | None]:
    """Give the body, and the size of its JSON where binary data follows.

    Args:
        head: the members before the outputs, such as `model_name`.
        binary: the outputs that are asked for, in order, and whether as binary data.

    Raises:
        BadRequest: JSON was asked for, and cannot say it.
    """
    described: list[bytes] = []
    parts: list[bytes | memoryview] = []
    for name, is_binary in binary.items():
        array = outputs[name]
        output: dict[str, Any] = {
            "name": name,
            "datatype": _NAMES[array.dtype],
            "shape": array.shape,
        }
        if is_binary:
            part = to_binary(array)
            parts.append(part)
            output["parameters"] = {"binary_data_size": part.nbytes}
            described += [b",", orjson.dumps(output)]
        else:
            elements = to_json(array, f"output {name}")
            described += [b",", orjson.dumps(output)[:-1], b',"data":[', *elements, b"]}"]
    # an id may have halves of surrogate pairs, which orjson does not spell
    members = [f'"{name}":{canonical_json(value)},'.encode() for name, value in head.items()]
    # put together once, for it may be large
    text = b"".join([b"{", *members, b'"outputs":[', *described[1:], b"]}"])
    return (b"".join([text, *parts]), len(text)) if parts else (text, None)


def _document(
    body: bytes, json_size: int | None, hold: Callable[[int], None]
) -> tuple[dict[str, Any], dict[str, LongList]]:
    if json_size is not None and not 0 <= json_size <= len(body):
        raise BadRequest(
            f"{JSON_SIZE_HEADER} is {json_size}; accepted is the size of the JSON, of "
            f"{len(body)} bytes of the body"
        )
    try:
        document, long_lists = parse_body(body[:json_size], hold)
    except UnicodeDecodeError as error:
        raise BadRequest(f"not UTF-8 at byte {error.start} of the JSON") from None
    except ValueError as error:
        raise BadRequest(str(error)) from None
    if not isinstance(document, dict):
        raise BadRequest(f"the request is {summary(document)}; accepted is an object")
    return document, long_lists


def _data(
    tensor: dict[str, Any], long_lists: dict[str, LongList], where: str
) -> list[Any] | LongList | None:
    given = tensor.get("data")
    long_list = long_lists.get(given) if isinstance(given, str) else None
    return long_list or _member(tensor, "data", list, where)


def _wanted(document: dict[str, Any], outputs: Collection[str]) -> dict[str, bool]:
    parameters = _member(document, "parameters", dict, "the request") or {}
    default = _member(parameters, "binary_data_output", bool, "the request") or False
    wanted: dict[str, bool] = {}
    for output in _member(document, "outputs", list, "the request") or []:
        name = _name(output, "output", outputs, wanted)
        where = f"output {name}"
        is_binary = _member(_parameters(output, where), "binary_data", bool, where)
        wanted[name] = default if is_binary is None else is_binary
    return wanted or dict.fromkeys(outputs, default)


def _name(tensor: Any, what: str, known: Collection[str], seen: Collection[str]) -> str:
    if not isinstance(tensor, dict):
        raise BadRequest(f"an {what} is {summary(tensor)}; accepted is an object")
    name = _member(tensor, "name", str, f"an {what}")
    if name is None or name not in known:
        raise BadRequest(
            f"name of an {what} is {_given(name)}; accepted is one of {', '.join(known)}"
        )
    if name in seen:
        raise BadRequest(f"{what} {name} is there twice; accepted is once")
    return name


def _parameters(tensor: dict[str, Any], where: str) -> dict[str, Any]:
    parameters = _member(tensor, "parameters", dict, where) or {}
    for extension in ("shared_memory_region", "classification"):
        if parameters.get(extension) is not None:
            raise BadRequest(
                f"{where} has the parameter {extension}; accepted are tensors as JSON and as "
                "binary data"
            )
    return parameters


def _shape(tensor: dict[str, Any], spec: TensorSpec, where: str) -> list[int]:
    datatype = _member(tensor, "datatype", str, where)
    if datatype != spec.datatype:
        raise BadRequest(f"datatype of {where} is {_given(datatype)}; accepted is {spec.datatype}")
    shape = _member(tensor, "shape", list, where)
    if shape is None or len(shape) not in (
        {len(spec.shape)} if spec.shape else range(HIGHEST_RANK + 1)
    ):
        raise _bad_shape(shape, spec, where)
    claimed = 1
    for size, accepted in zip(shape, spec.shape or [-1] * len(shape), strict=True):
        if type(size) is not int or not 0 <= size <= LARGEST_SIZE or accepted not in (-1, size):
            raise _bad_shape(shape, spec, where)
        if accepted == -1:
            claimed *= size or 1
    if claimed > LARGEST_EMPTY and 0 in shape:
        raise BadRequest(
            f"shape of {where} is {_given(shape)}; accepted beside a 0 are sizes for -1 with a "
            f"product of up to {LARGEST_EMPTY}"
        )
    return shape


def _bad_shape(shape: list[Any] | None, spec: TensorSpec, where: str) -> BadRequest:
    if spec.shape:
        accepted = f"{list(spec.shape)}, with a size for each -1"
    else:
        accepted = f"a list of up to {HIGHEST_RANK} sizes"
    return BadRequest(f"shape of {where} is {_given(shape)}; accepted is {accepted}")


def _member(parent: dict[str, Any], key: str, kind: type[Kind], where: str) -> Kind | None:
    value = parent.get(key)
    # of exactly this type, for true is no integer
    if value is not None and type(value) is not kind:
        raise BadRequest(f"{key} of {where} is {summary(value)}; accepted is {_KINDS[kind]}")
    return value


def _given(value: str | list[Any] | None) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(summary, value[:8]))}{', ...' if len(value) > 8 else ''}]"
    return "missing" if value is None else summary(value)
