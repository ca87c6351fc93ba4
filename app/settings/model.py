"""The settings of `STATE_LOADER=onnx`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from app.settings.environment import SettingsError, read, setting, variables
from app.settings.kinds import FilePath, Words, size, whole_number

MEBIBYTE = 2**20
MOST_BYTES = 2**63 - 1
LONGEST_SECONDS = 86_400


@dataclass(frozen=True)
class ModelSettings:
    uri_prefixes: tuple[str, ...] = setting(
        "MODEL_URI_PREFIXES",
        Words(),
        "The addresses below which the URIs of models must be: a URI must be equal to a "
        "prefix, or continue it after a `/`. If it is not set, models can only come inside "
        "messages.",
        default=(),
    )
    max_bytes: int = setting(
        "MODEL_MAX_BYTES",
        size(1, MOST_BYTES),
        "How large a model may be.",
        default=1024 * MEBIBYTE,
    )
    fetch_seconds: int = setting(
        "MODEL_FETCH_SECONDS",
        whole_number("seconds", 1, LONGEST_SECONDS),
        "How long fetching a model may take.",
        default=60,
    )
    load_seconds: int = setting(
        "MODEL_LOAD_SECONDS",
        whole_number("seconds", 1, LONGEST_SECONDS),
        "How long a model's first load and run may take. With more than 60, `/healthz` may "
        "answer 503 during a slow load.",
        default=60,
    )
    cache_dir: Path | None = setting(
        "MODEL_CACHE_DIR",
        FilePath(),
        "The folder that keeps models. If it is not set: `kafka-state` in the user's cache "
        "folder. If the folder cannot be written to, the service does not start.",
        default=None,
    )
    cache_bytes: int = setting(
        "MODEL_CACHE_BYTES",
        size(0, MOST_BYTES),
        "The size limit of that folder. The models that have not been used for the longest "
        "time are removed first.",
        default=4096 * MEBIBYTE,
    )
    keep_versions: int = setting(
        "MODEL_KEEP_VERSIONS",
        whole_number("versions", 0, 100),
        "How many earlier versions stay loaded and still answer requests that name them. Each "
        "takes the memory of its model in every worker.",
        default=1,
    )
    threads: int | None = setting(
        "MODEL_THREADS",
        whole_number("threads", 1, 1024),
        "How many threads compute one request. If it is not set: the machine's cores divided "
        "by the threads of all gunicorn workers, but at least one.",
        default=None,
    )
    max_request_bytes: int = setting(
        "MODEL_MAX_REQUEST_BYTES",
        size(1, MOST_BYTES),
        "How large an inference request may be.",
        default=32 * MEBIBYTE,
    )
    max_held_bytes: int = setting(
        "MODEL_MAX_HELD_BYTES",
        size(1, MOST_BYTES),
        "How much memory all inference requests of a worker together may hold at once, "
        "including their parsed inputs and their answers.",
        default=256 * MEBIBYTE,
    )
    infer_seconds: int = setting(
        "MODEL_INFER_SECONDS",
        whole_number("seconds", 1, LONGEST_SECONDS),
        "How long a request may wait for a core and compute, in total.",
        default=30,
    )

    @classmethod
    def from_environ(cls, environ: Mapping[str, str], is_used: bool) -> ModelSettings | None:
        """Read the variables that begin with `MODEL_`; None where they are not used.

        Raises:
            SettingsError: a value makes no sense, or would have no effect.
        """
        if is_used:
            return read(cls, environ)
        for variable in variables(cls):
            if environ.get(variable):
                raise SettingsError(
                    f"{variable} is {environ[variable]!r}: accepted only with STATE_LOADER=onnx"
                )
        return None
