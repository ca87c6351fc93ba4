"""FastAPI and onnxruntime: a model of the Open Inference Protocol with binary tensors, run in the
loop, which for a small one costs less than a thread, or in threads."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np
import onnxruntime
from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool

IN_THREADS = "BENCH_IN_THREADS" in os.environ
SIZE = "Inference-Header-Content-Length"
DTYPES: dict[str, np.dtype[Any]] = {"FP32": np.dtype("f4"), "INT64": np.dtype("i8")}
DATATYPES = {dtype: name for name, dtype in DTYPES.items()}

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(os.environ["BENCH_MODEL"], options)
names = [output.name for output in session.get_outputs()]
app = FastAPI()


@app.get("/state")  # type: ignore[untyped-decorator]
async def get_state() -> dict[str, Any]:
    return {"state": 1}


@app.post("/v2/models/m/infer")  # type: ignore[untyped-decorator]
async def infer(request: Request) -> Response:
    body = await request.body()
    position = int(request.headers[SIZE])
    inputs = {}
    for tensor in json.loads(body[:position])["inputs"]:
        size = tensor["parameters"]["binary_data_size"]
        dtype = DTYPES[tensor["datatype"]]
        data = np.frombuffer(body, dtype, size // dtype.itemsize, position)
        inputs[tensor["name"]] = data.reshape(tensor["shape"])
        position += size
    if IN_THREADS:
        computed = await run_in_threadpool(session.run, names, inputs)
    else:
        computed = session.run(names, inputs)
    outputs = [
        {
            "name": name,
            "datatype": DATATYPES[array.dtype],
            "shape": array.shape,
            "parameters": {"binary_data_size": array.nbytes},
        }
        for name, array in zip(names, computed, strict=True)
    ]
    head = json.dumps({"model_name": "m", "model_version": "1", "outputs": outputs}).encode()
    return Response(
        head + b"".join(array.tobytes() for array in computed),
        media_type="application/octet-stream",
        headers={SIZE: str(len(head))},
    )
