"""The limit of what gunicorn can do with a model: a callable that knows what it will be asked."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime

SIZE = "Inference-Header-Content-Length"

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(os.environ["BENCH_MODEL"], options)


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    if environ["REQUEST_METHOD"] == "GET":
        start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", "11")])
        return [b'{"state":1}']
    body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    x = np.frombuffer(body, np.float32, offset=int(environ["HTTP_INFERENCE_HEADER_CONTENT_LENGTH"]))
    (y,) = session.run(None, {"x": x.reshape(-1, 2)})
    output = {
        "name": "y",
        "datatype": "FP32",
        "shape": y.shape,
        "parameters": {"binary_data_size": y.nbytes},
    }
    head = json.dumps({"model_name": "m", "model_version": "1", "outputs": [output]}).encode()
    answer = head + y.tobytes()
    start_response(
        "200 OK",
        [
            ("Content-Type", "application/octet-stream"),
            ("Content-Length", str(len(answer))),
            (SIZE, str(len(head))),
        ],
    )
    return [answer]
