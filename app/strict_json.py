"""JSON (RFC 8259), read so strictly that every instance finds the same texts valid."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

# below what Python's parser takes, which depends on its version and on who calls it: every
# instance must find the same messages valid
DEEPEST_NESTING = 900


def parse_json(text: str, *, allow_nan: bool = False) -> Any:
    """Parse RFC 8259 JSON: no NaN, no infinity, nothing that would become one.

    Args:
        allow_nan: whether NaN is read as a float; RFC 8259 lacks it, and many clients write it.

    Raises:
        ValueError: it is no such JSON.
    """
    try:
        value = (_NAN_DECODER if allow_nan else _DECODER).decode(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON that can be served: {str(error)[:100]}") from None
    if text.count("[") + text.count("{") > DEEPEST_NESTING:
        _require_shallow(value)
    return value


def canonical_json(value: Any) -> str:
    """Write a parsed value as compact ASCII, so that any string in it can be sent and logged."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _require_shallow(value: Any) -> None:
    level = [value]
    for _ in range(DEEPEST_NESTING + 1):
        containers = [inner for inner in level if isinstance(inner, (dict, list))]
        level = [
            child
            for inner in containers
            for child in (inner.values() if isinstance(inner, dict) else inner)
        ]
    if containers:
        raise ValueError(f"nested more than {DEEPEST_NESTING} deep")


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _nan(constant: str) -> float:
    return math.nan if constant == "NaN" else _refuse(constant)


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError("a number too large for a float")
    return number


# json.loads would make a decoder for each message
_DECODER = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite)
_NAN_DECODER = json.JSONDecoder(parse_constant=_nan, parse_float=_finite)
