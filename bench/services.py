"""What is measured, as processes on this machine."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from dev.ports import free_ports

ROOT = Path(__file__).parent.parent
KAFKA_PYTHON_3 = Path(sys.prefix) / "kafka-python"

START_SECONDS = 120.0
STOP_SECONDS = 10.0
LOOK_SECONDS = 0.002
GUNICORN = (sys.executable, "-m", "gunicorn", "--bind", "127.0.0.1:{port}")
SAME_GUNICORN = (*GUNICORN, "--config", "bench/peers/same_gunicorn.py")


@dataclass(frozen=True)
class Service:
    """A program that answers GET /state; `{port}` in its command is where."""

    name: str
    command: Sequence[str]
    environ: Mapping[str, str] = field(default_factory=dict)


OURS = Service("this service, kafka-python-ng", (*GUNICORN, "wsgi:app"))
OURS_3 = Service("this service, kafka-python 3", OURS.command, {"PYTHONPATH": str(KAFKA_PYTHON_3)})
CLIENTS = (OURS, OURS_3)
UVICORN = (
    *(sys.executable, "-m", "uvicorn", "--port", "{port}", "--loop", "uvloop"),
    *("--http", "httptools", "--no-access-log", "--log-level", "warning"),
)
FASTAPI = Service("FastAPI + aiokafka", (*UVICORN, "bench.peers.fastapi_service:app"))
FLASK_LOOP = Service(
    "Flask + consumer loop",
    # a configuration of its own: gunicorn would take the service's from this folder
    (*GUNICORN, "--config", "/dev/null", "--threads", "16", "bench.peers.flask_loop:app"),
)
BARE_WSGI = Service("bare WSGI callable", (*SAME_GUNICORN, "bench.peers.bare_wsgi:app"))
BARE_FLASK = Service("bare Flask view", (*SAME_GUNICORN, "bench.peers.bare_flask:app"))
FASTAPI_ONNX = Service("FastAPI + onnxruntime", (*UVICORN, "bench.peers.fastapi_onnx:app"))
FASTAPI_ONNX_THREADS = Service(
    "FastAPI + onnxruntime in threads", FASTAPI_ONNX.command, {"BENCH_IN_THREADS": "1"}
)
BARE_ONNX = Service("bare WSGI + onnxruntime", (*SAME_GUNICORN, "bench.peers.bare_onnx:app"))


class Running:
    """A service that was started.

    Attributes:
        started: when, by time.monotonic().
    """

    def __init__(
        self, process: subprocess.Popen[bytes], port: int, started: float, log: Path
    ) -> None:
        self.process = process
        self.port = port
        self.started = started
        self._log = log
        self._following: set[str] = set()

    def output(self) -> str:
        return self._log.read_text()

    def state(self) -> Any:
        """What /state says, None while it does not answer or knows nothing."""
        client = Client(self.port)
        with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(client):
            return client.state()
        return None

    def wait_for(self, state: Any, within: float = START_SECONDS) -> float:
        """Give the seconds from the start until /state said so.

        Raises:
            RuntimeError: the program has ended, or `within` seconds have passed.
        """
        deadline = time.monotonic() + within
        while self.state() != state:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.process.args!r} did not come to {state!r}")
            time.sleep(LOOK_SECONDS)
        return time.monotonic() - self.started

    def wait_for_starts(self, count: int, within: float = START_SECONDS) -> None:
        """Wait until so many workers of this service have started, those that have ended too.

        Raises:
            RuntimeError: the program has ended, or `within` seconds have passed.
        """
        deadline = time.monotonic() + within
        while self.output().count("Initializing API") < count:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.process.args!r} did not start {count} workers")
            time.sleep(LOOK_SECONDS)

    @property
    def workers(self) -> list[psutil.Process]:
        """The processes that answer."""
        process = psutil.Process(self.process.pid)
        return process.children() or [process]

    @property
    def worker(self) -> psutil.Process:
        """The one that answers, where there is one."""
        return self.workers[0]

    @property
    def cpu_seconds(self) -> list[float]:
        """What the threads of each worker have taken until now."""
        return [times.user + times.system for times in (w.cpu_times() for w in self.workers)]

    def note_following_threads(self) -> None:
        """Take the threads that there are now, but for the main one, for those that follow the
        topic; to be called before the first request, which makes more."""
        worker = self.worker.pid
        self._following = set(os.listdir(f"/proc/{worker}/task")) - {str(worker)}

    def following_seconds(self) -> float:
        """The CPU time of the threads that follow the topic, until now."""
        tasks = Path(f"/proc/{self.worker.pid}/task")
        nanoseconds = [
            int((tasks / t / "schedstat").read_text().split()[0]) for t in self._following
        ]
        return sum(nanoseconds) / 1e9

    def bytes_fetched(self, servers: str) -> int | None:
        """What it has received from the broker until now; None where `ss` does not tell."""
        _, _, port = servers.rpartition(":")
        try:
            told = subprocess.run(
                ("ss", "-tinpH", f"dport = :{port}"), capture_output=True, text=True, check=True
            ).stdout
        except (OSError, subprocess.CalledProcessError):
            return None
        connections = re.split(r"\n(?=\S)", told)
        own = [text for text in connections if f"pid={self.worker.pid}," in text]
        return sum(int(n) for text in own for n in re.findall(r"bytes_received:(\d+)", text))


class Client:
    """One connection that is kept."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def get(self, path: str = "/state", **headers: str) -> tuple[list[tuple[str, str]], str]:
        """Headers and body, whatever the status."""
        self._connection.request("GET", path, headers=headers)
        answer = self._connection.getresponse()
        return answer.getheaders(), answer.read().decode()

    def state(self) -> Any:
        return json.loads(self.get()[1]).get("state")

    def next_state(self, after: Callable[[], None]) -> Any:
        """What /state says when it is no longer what it is before `after`.

        Raises:
            ValueError: it is the same for some 30 s.
        """
        (etag,) = (value for name, value in self.get()[0] if name == "ETag")
        after()
        return json.loads(self.get(**{"If-None-Match": etag, "Prefer": "wait=25"})[1])["state"]

    def close(self) -> None:
        self._connection.close()


@contextlib.contextmanager
def running(
    service: Service, servers: str, topic: str, folder: Path, **environ: str
) -> Iterator[Running]:
    """Run it for as long as the block; its files and output go to `folder`."""
    port = next(free_ports)
    command = [part.format(port=port) for part in service.command]
    settings = {"KAFKA_TOPIC": topic, "KAFKA_BOOTSTRAP_SERVERS": servers, "TMPDIR": str(folder)}
    log = folder / f"output-{port}"
    with log.open("wb") as output:
        started = time.monotonic()
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **settings, **service.environ, **environ},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield Running(process, port, started, log)
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
