"""A model that is ready to be asked."""

from __future__ import annotations

import copy
import ctypes
import logging
import math
import os
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

# without it onnxruntime would tell its maker of its use, from its import on
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime
from onnxruntime import OrtValue, RunOptions

from app.message_errors import InvalidMessage, NotServed, RetryableError
from app.model.datatypes import DATATYPE_OF_ONNX, DATATYPES, Array
from app.model.tensors import TensorSpec

log = logging.getLogger(__name__)

# they are raised, too
NO_ERRORS = 4
# of inputs or outputs, after which onnxruntime is to free what it would keep for the next run
LARGE_BYTES = 2**20
SHRINK = ("memory.enable_memory_arena_shrinkage", "cpu:0")
# of TensorProto.DataType in onnx.proto
BFLOAT16 = 16
ONE_AS_BFLOAT16 = 0x3F80


class Limits(NamedTuple):
    """What a request may take.

    Attributes:
        threads: how many a request is computed with.
        request_bytes: how large a request may be.
    """

    threads: int
    request_bytes: int


class Model:
    """For any thread; freed after the last request that uses it.

    Attributes:
        representation: the JSON value that stands for it in `/state`.
        run_seconds: what the last runs took of a core, waiting for the GIL not counted.
    """

    def __init__(
        self, session: onnxruntime.InferenceSession, representation: Mapping[str, Any]
    ) -> None:
        """
        Raises:
            InvalidMessage: it has no output, or something that the protocol has no type for.
        """
        self._session = session
        self.run_seconds = 0.0
        self._has_grown = threading.Event()  # the session, which others may share
        self._has_grown.set()  # by being loaded
        self.representation = dict(representation)
        self.inputs = [_spec(node) for node in session.get_inputs()]
        self.outputs = [_spec(node) for node in session.get_outputs()]
        self._has_bfloat16 = any(spec.datatype == "BF16" for spec in self.inputs + self.outputs)
        if not self.outputs:
            raise InvalidMessage("model", "it has no output; accepted is one or more")

    @property
    def name(self) -> str:
        name: str = self.representation["name"]
        return name

    @property
    def version(self) -> str:
        version: str = self.representation["version"]
        return version

    def named(self, representation: Mapping[str, Any]) -> Model:
        """The same, as another message names it; it takes no memory of its own."""
        model = copy.copy(self)
        model.representation = dict(representation)
        return model

    @classmethod
    def load(cls, path: Path, representation: Mapping[str, Any], limits: Limits) -> Model:
        """Load and warm up the model at `path`, which is not needed any longer then.

        From a path and not from bytes, for onnxruntime holds the GIL for 50 to 70 ms with 50 MB
        of those, and for 4 ms at most with a path.

        Raises:
            InvalidMessage: it is none that can be asked.
            RetryableError: there is not enough memory for it.
        """
        options = onnxruntime.SessionOptions()
        options.log_severity_level = NO_ERRORS
        options.intra_op_num_threads = limits.threads
        options.inter_op_num_threads = 1
        # those of a model that is served no more are to be freed
        options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
        # threads that wait for the next request would take the cores from those that have one
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            session = onnxruntime.InferenceSession(
                path, options, providers=["CPUExecutionProvider"]
            )
            model = cls(session, representation)
        except NotServed:
            raise
        except Exception as error:
            text = f"onnxruntime: {_first_line(error)}"
            if _is_lack_of_memory(error):
                raise RetryableError("memory", text) from error
            raise InvalidMessage("model", text) from error
        model._warm_up(limits.request_bytes)
        return model

    def infer(
        self,
        inputs: Mapping[str, Array],
        outputs: Iterable[str],
        options: RunOptions | None = None,
    ) -> dict[str, Array]:
        """Compute the outputs that are named.

        Args:
            options: with which the run can be ended.

        Raises:
            ValueError: the model cannot compute them from these inputs.
            MemoryError: there is not enough memory to compute them.
        """
        names = list(outputs)
        run = self._run_with_bfloat16 if self._has_bfloat16 else self._session.run
        options = options or RunOptions()
        is_large = sum(array.nbytes for array in inputs.values()) > LARGE_BYTES
        if is_large or self._has_grown.is_set():
            options.add_run_config_entry(*SHRINK)
            self._has_grown.clear()
        options.log_severity_level = NO_ERRORS
        has_grown = True  # as far as is known of one that fails
        began = time.thread_time()
        try:
            computed = run(names, dict(inputs), options)
            has_grown = is_large or sum(array.nbytes for array in computed) > LARGE_BYTES
        except Exception as error:  # one class for each kind of fault, and no common one
            if _is_lack_of_memory(error):
                raise MemoryError(_first_line(error)) from error
            raise ValueError(_first_line(error)) from error
        finally:
            # one that was slow, or was ended, is taken to be slow for some runs more
            self.run_seconds = max(time.thread_time() - began, self.run_seconds / 2)
            if has_grown:
                self._has_grown.set()  # the outputs are still there
        return dict(zip(names, computed, strict=True))

    def _run_with_bfloat16(
        self, outputs: list[str], inputs: dict[str, Array], options: RunOptions
    ) -> list[Array]:
        """numpy has no bfloat16, so onnxruntime takes and gives values of its own."""
        values = {
            name: OrtValue.ortvalue_from_numpy_with_onnx_type(array.view(np.uint16), BFLOAT16)
            if array.dtype == DATATYPES["BF16"]
            else OrtValue.ortvalue_from_numpy(array)
            for name, array in inputs.items()
        }
        return list(map(_array_of, self._session.run_with_ort_values(outputs, values, options)))

    def batch_size(self, inputs: Mapping[str, Array]) -> int | None:
        """The first dimension of the first input, where it is dynamic."""
        first = next(iter(self.inputs), None)
        is_dynamic = first and first.shape[:1] == (-1,)
        return len(inputs[first.name]) if first and is_dynamic else None

    def _warm_up(self, most_bytes: int) -> None:
        """Run it once, so that the first request does not wait for memory and kernels.

        The inputs are ones, because some models divide by them, and dynamic dimensions are 1. A
        model that fails at this is served all the same.

        Raises:
            InvalidMessage: no request can be as large as its inputs.
            RetryableError: there is not enough memory for it.
        """
        size = sum(map(_least_bytes, self.inputs))
        if size > most_bytes:
            detail = f"its inputs have {size} bytes or more; accepted are {most_bytes} in a request"
            raise InvalidMessage("model", detail)
        ones = {spec.name: _ones(spec) for spec in self.inputs}
        try:
            self.infer(ones, [spec.name for spec in self.outputs])
        except ValueError as error:
            log.warning("The model %s %s is not warmed up: %s", self.name, self.version, error)
        except MemoryError as error:
            raise RetryableError("memory", f"onnxruntime, at its first run: {error}") from error


def _spec(node: onnxruntime.NodeArg) -> TensorSpec:
    datatype = DATATYPE_OF_ONNX.get(node.type)
    if datatype is None:
        raise InvalidMessage(
            "model",
            f"{node.name} is a {node.type}; accepted are tensors of {', '.join(DATATYPES)} "
            "(of scikit-learn: convert with the option zipmap=False)",
        )
    return TensorSpec(
        node.name, datatype, tuple(size if isinstance(size, int) else -1 for size in node.shape)
    )


def _array_of(value: OrtValue) -> Array:
    if value.element_type() != BFLOAT16:
        array: Array = value.numpy()
        return array
    shape = value.shape()
    size = math.prod(shape) * DATATYPES["BF16"].itemsize
    return np.frombuffer(ctypes.string_at(value.data_ptr(), size), DATATYPES["BF16"]).reshape(shape)


def _ones(spec: TensorSpec) -> Array:
    shape = [abs(size) for size in spec.shape]
    if spec.datatype == "BF16":
        return np.full(shape, ONE_AS_BFLOAT16, np.uint16).view(DATATYPES["BF16"])
    return np.full(shape, "1" if spec.datatype == "BYTES" else 1, DATATYPES[spec.datatype])


def _least_bytes(spec: TensorSpec) -> int:
    """The least size of this input in a request, with dynamic dimensions of one."""
    return math.prod(map(abs, spec.shape)) * DATATYPES[spec.datatype].itemsize


def _is_lack_of_memory(error: Exception) -> bool:
    """onnxruntime says it in words only: of its own allocations and of the C++ library's."""
    text = str(error)
    said = "bad_alloc" in text or "Failed to allocate memory" in text
    return said or isinstance(error, MemoryError)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
