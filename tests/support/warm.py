"""Starts this project's programs from a process that has imported what they will: as with an
interpreter for each, but without the half a second of a core that those imports take.

What is started is a process of its own, with its own session, environment, signals and exit status.
It imports itself what looks at the environment when it is imported, as gunicorn, prometheus_client
and onnxruntime do, and all of this project where it is a copy. With COLD_STARTS=1 each has an
interpreter of its own.
"""

from __future__ import annotations

import atexit
import functools
import gc
import importlib
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
IMPORTS = (
    "aiohttp",
    "apispec.ext.marshmallow",
    "click",
    "cramjam",
    "crc32c",
    "flask",
    "flask_swagger_ui",
    "fsspec",
    "http.server",
    "kafka",
    "lz4.frame",
    "marshmallow",
    "numpy",
    "pythonjsonlogger.json",
    "snappy",
    "urllib.request",
    "zstandard",
)
# this project's, for what is started in its folder
OWN_IMPORTS = ("app.commands", "app.web.description", "app.model.source")
DEMO = ["-m", "examples.model"]
IMPORTS_OF_DEMO = ("skl2onnx", "sklearn.linear_model", "tritonclient.http")
# numpy's libraries start threads when they are imported, which a fork does not take along
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
LOOK_SECONDS = 0.01
END_SECONDS = 10


class Start(NamedTuple):
    """What is to be started; its standard input, output and error come beside it."""

    command: Sequence[str]
    cwd: str
    environ: Mapping[str, str]


def popen(command: Sequence[str], cwd: Path, environ: Mapping[str, str], *files: Any) -> Any:
    """Like `subprocess.Popen`, in a session of its own; `files` are its input, output and error."""
    if _can_be_warm(command, environ):
        return _server(_imports(command, cwd)).start(Start(command, str(cwd), dict(environ)), files)
    stdin, stdout, stderr = files
    return subprocess.Popen(
        command,
        cwd=cwd,
        env=environ,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
    )


def _can_be_warm(command: Sequence[str], environ: Mapping[str, str]) -> bool:
    is_ours = (
        command[:3] == [sys.executable, "-m", "gunicorn"]
        or command == [sys.executable, *DEMO]
        or command[:2] == [sys.executable, "producer.py"]
        or command[0] == str(Path(sys.executable).with_name("kafka-state"))
    )
    has_same_path = environ.get("PYTHONPATH") == os.environ.get("PYTHONPATH")
    return is_ours and has_same_path and not os.environ.get("COLD_STARTS")


def _imports(command: Sequence[str], cwd: Path) -> Sequence[str]:
    if command[1:3] == DEMO:
        return IMPORTS_OF_DEMO
    return (*IMPORTS, *OWN_IMPORTS) if cwd == ROOT else IMPORTS


class Server:
    """The process that starts others, seen from here. For any thread."""

    def __init__(self, imports: Sequence[str]) -> None:
        here, there = socket.socketpair()
        with there:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.warm", str(there.fileno()), *imports],
                cwd=ROOT,
                env={**os.environ, **ONE_THREAD},
                pass_fds=[there.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._socket = here
        self._connection = Connection(os.dup(here.fileno()))
        self._lock = threading.Lock()  # of what is said over the connection, and of the statuses
        self._statuses: dict[int, int] = {}
        atexit.register(self._end)

    def start(self, start: Start, files: Sequence[Any]) -> Process:
        with self._lock:
            self._connection.send(start)
            socket.send_fds(self._socket, [b"!"], [file.fileno() for file in files])
            while (said := self._connection.recv())[1] is not None:
                self._note(*said)
        return Process(self, said[0])

    def status_of(self, pid: int) -> int | None:
        """None while it runs."""
        with self._lock:
            while self._connection.poll():
                self._note(*self._connection.recv())
            return self._statuses.get(pid)

    def _end(self) -> None:
        self._connection.close()
        self._socket.close()
        self._process.wait(END_SECONDS)

    def _note(self, pid: int, status: int) -> None:
        self._statuses[pid] = os.waitstatus_to_exitcode(status)


@functools.cache
def _server(imports: Sequence[str]) -> Server:
    return Server(imports)


class Process:
    """What was started; as much of `subprocess.Popen` as is used here."""

    def __init__(self, server: Server, pid: int) -> None:
        self.pid = pid
        self._server = server

    @property
    def returncode(self) -> int | None:
        return self.poll()

    def poll(self) -> int | None:
        return self._server.status_of(self.pid)

    def wait(self, timeout: float) -> int:
        deadline = time.monotonic() + timeout
        while (status := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
            time.sleep(LOOK_SECONDS)
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _serve(there: socket.socket) -> Start:
    """Start what is asked for; returns in each process that is started, and ends in this one as
    soon as nobody is there to ask."""
    connection = Connection(os.dup(there.fileno()))
    woken, wake = socket.socketpair()
    for end in (woken, wake):
        end.setblocking(False)
    signal.set_wakeup_fd(wake.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while True:
        if woken in wait([connection, woken]):
            woken.recv(1000)
            for pid, status in iter(_ended_child, None):
                connection.send((pid, status))
            continue
        try:
            start: Start = connection.recv()
        except EOFError:
            os._exit(0)
        _, files, _, _ = socket.recv_fds(there, 1, 3)
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            for end in (woken, wake, there):
                end.close()
            connection.close()
            _become(start, files)
            return start
        for file in files:
            os.close(file)
        connection.send((pid, None))


def _ended_child() -> tuple[int, int] | None:
    try:
        pid, status = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return None
    return (pid, status) if pid else None


def _become(start: Start, files: Sequence[int]) -> None:
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(start.cwd)
    os.environ.clear()
    os.environ.update(start.environ)


def _run(command: Sequence[str]) -> None:
    arguments = list(command[1:] if command[0] == sys.executable else command)
    if arguments[0] == "-m":
        sys.argv, sys.path[0] = arguments[1:], os.getcwd()
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = arguments, str(Path(arguments[0]).absolute().parent)
        runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    for name in sys.argv[2:]:
        importlib.import_module(name)
    gc.freeze()
    _run(_serve(socket.socket(fileno=int(sys.argv[1]))).command)
