"""As many requests as are answered: by wrk where it is there, else by aiohttp."""

from __future__ import annotations

import asyncio
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import aiohttp

CONNECTIONS = 8
WRK = shutil.which("wrk")
UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}


@dataclass(frozen=True)
class Request:
    """What is asked: GET, or POST where there is a body."""

    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None

    @property
    def method(self) -> str:
        return "GET" if self.body is None else "POST"


STATE = Request("/state")


@dataclass(frozen=True)
class Load:
    """Requests a second, and how long an answer took at the 99th percentile, in seconds."""

    rate: float
    p99: float


def load(
    port: int, seconds: float, request: Request = STATE, connections: int = CONNECTIONS
) -> Load:
    """Ask for `seconds` with connections that each ask again when they are answered.

    Raises:
        RuntimeError: an answer was not 200.
    """
    if WRK:
        return _with_wrk(f"http://127.0.0.1:{port}", seconds, request, connections)
    return asyncio.run(_with_aiohttp(f"http://127.0.0.1:{port}", seconds, request, connections))


def name() -> str:
    return "wrk" if WRK else f"aiohttp {aiohttp.__version__}"


def _with_wrk(url: str, seconds: float, request: Request, connections: int) -> Load:
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(f'wrk.method = "{request.method}"\n')
        for name, value in request.headers.items():
            script.write(f'wrk.headers["{name}"] = "{value}"\n')
        if request.body is not None:
            escaped = "".join(f"\\{byte:03}" for byte in request.body)
            script.write(f'wrk.body = "{escaped}"\n')
        script.flush()
        told = subprocess.run(
            [
                *(str(WRK), "-t1", f"-c{connections}", f"-d{round(seconds)}s", "--latency"),
                *("-s", script.name, url + request.path),
            ],
            capture_output=True,
            text=True,
            timeout=seconds + 60,
            check=True,
        ).stdout
    if "Non-2xx" in told:
        raise RuntimeError(told)
    number, unit = re.findall(r"99%\s+([\d.]+)(us|ms|s|m)\b", told)[0]
    (rate,) = re.findall(r"Requests/sec:\s+([\d.]+)", told)
    return Load(float(rate), float(number) * UNITS[unit])


async def _with_aiohttp(url: str, seconds: float, request: Request, connections: int) -> Load:
    taken: list[float] = []
    began = time.perf_counter()

    async def ask_again_and_again(session: aiohttp.ClientSession) -> None:
        while (asked := time.perf_counter()) < began + seconds:
            async with session.request(
                request.method, url + request.path, headers=request.headers, data=request.body
            ) as answer:
                await answer.read()
                if answer.status != 200:
                    raise RuntimeError(f"{url} answered {answer.status}")
            taken.append(time.perf_counter() - asked)

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(ask_again_and_again(session) for _ in range(connections)))
    return Load(len(taken) / seconds, quantile(taken, 99))


def quantile(values: Sequence[float], percent: int) -> float:
    if len(values) == 1:
        return values[0]
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]
