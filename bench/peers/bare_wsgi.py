"""The limit of what gunicorn can do: a callable that gives the bytes that the service gave."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

ANSWER = json.loads(os.environ["BENCH_ANSWER"])
HEADERS = [(name, value) for name, value in ANSWER["headers"]]
BODY = ANSWER["body"].encode()


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    start_response("200 OK", HEADERS)
    return [BODY]
