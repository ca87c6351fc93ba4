"""The program as a process, started and ended the way a person does it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import requests

from dev.ports import free_ports
from tests.support import warm
from tests.support.topics import Topic
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]
# of a program's output, where the file itself may not be at hand
LAST_CHARACTERS = 10_000


def free_port() -> int:
    return next(free_ports)


class Program:
    """A command that serves HTTP on `port`, in a session of its own like a terminal's."""

    def __init__(
        self, command: Sequence[str], port: int, environ: Mapping[str, str], log: Path, cwd: Path
    ) -> None:
        self.port = port
        self._log = log
        self._session = requests.Session()
        self._session.trust_env = False  # to look for proxies takes longer than to ask
        # whoever holds the answer would hold its connection too, which a stop waits for
        self._session.headers["Connection"] = "close"
        # one that is killed leaves the folder of its metrics
        environ = {**os.environ, "TMPDIR": str(log.parent), **environ}
        with log.open("w") as output, Path(os.devnull).open() as nothing:
            self.process = warm.popen(command, cwd, environ, nothing, output, output)

    @property
    def output(self) -> str:
        return self._log.read_text()

    @property
    def told(self) -> list[str]:
        """The lines of its output that are not about a request."""
        return [line for line in self.output.splitlines() if ' HTTP/1.1" ' not in line]

    def get(self, path: str = "/state") -> requests.Response | None:
        """The answer, or None while nothing listens."""
        url = f"http://127.0.0.1:{self.port}{path}"
        try:
            return self._session.get(url, timeout=5)
        except requests.ConnectionError:
            assert self.process.poll() is None, self.output
            return None

    def comes_to(self, state: Any) -> None:
        def serves() -> bool:
            answer = self.get()
            return answer is not None and answer.json().get("state", answer) == state

        eventually(serves)

    def serves_model(self, version: str) -> None:
        """Wait until it does."""

        def is_served() -> bool:
            answer = self.get()
            if answer is None or not answer.ok:
                return False
            state = answer.json()["state"]
            return isinstance(state, dict) and state["version"] == version  # or the initial one

        eventually(is_served)

    def tree(self) -> list[psutil.Process]:
        process = psutil.Process(self.process.pid)
        return [process, *process.children(recursive=True)]

    def press_ctrl_c(self) -> None:
        """As a terminal does: SIGINT to the whole foreground process group."""
        os.killpg(self.process.pid, signal.SIGINT)


def assert_all_ended(processes: Sequence[psutil.Process], within: float = 1.0) -> None:
    """A child that outlived its parent ends when nobody waits for it, and may stay a zombie for
    as long as the first process of the machine does not look."""
    deadline = time.monotonic() + within
    while alive := [str(process) for process in processes if not _has_ended(process)]:
        assert time.monotonic() < deadline, f"not ended within {within} s: {alive}"
        time.sleep(0.01)


def _has_ended(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@contextlib.contextmanager
def running(
    command: Sequence[str], port: int, environ: Mapping[str, str], log: Path, cwd: Path = ROOT
) -> Iterator[Program]:
    program = Program(command, port, environ, log, cwd)
    processes = program.tree()
    try:
        yield program
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            processes = program.tree()
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        program.process.wait(10)
        # pytest shows it of a test that has failed
        print("\n".join(program.told)[-LAST_CHARACTERS:])


def following(
    topic: Topic, log: Path, *options: str, port: int = 0, cwd: Path = ROOT, **environ: str
) -> contextlib.AbstractContextManager[Program]:
    """Run the program on a topic: gunicorn's options, and variables that come on top."""
    return running_on(topic, gunicorn(*options), log, port, cwd, **environ)


def running_on(
    topic: Topic,
    command: Sequence[str],
    log: Path,
    port: int = 0,
    cwd: Path = ROOT,
    **environ: str,
) -> contextlib.AbstractContextManager[Program]:
    """Run a command that follows a topic; `environ` comes on top."""
    port = port or free_port()
    settings = {**topic.environ, "PORT": str(port), **environ}
    return running(command, port, settings, log, cwd)


def ended(
    command: Sequence[str], cwd: Path = ROOT, stdin: str = "", **environ: str
) -> subprocess.CompletedProcess[str]:
    """Run a command that ends by itself; `environ` comes on top."""
    with (
        tempfile.TemporaryFile("w+") as given,
        tempfile.TemporaryFile("w+") as output,
        tempfile.TemporaryFile("w+") as errors,
    ):
        given.write(stdin)
        given.seek(0)
        process = warm.popen(command, cwd, {**os.environ, **environ}, given, output, errors)
        try:
            status = process.wait(60)
        finally:
            process.kill()
        output.seek(0)
        errors.seek(0)
        return subprocess.CompletedProcess(command, status, output.read(), errors.read())


def kafka_state() -> list[str]:
    """The command that is installed beside this Python."""
    return [str(Path(sys.executable).with_name("kafka-state"))]


def producer(*options: str, stdin: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
    """Run producer.py."""
    command = [sys.executable, "producer.py", *options]
    return ended(command, stdin=stdin, **environ)  # type: ignore[arg-type]  # none is cwd


def copy_program(folder: Path) -> None:
    """Leave a copy of what gunicorn runs, to be changed."""
    for name in ("wsgi.py", "gunicorn.conf.py"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "app", folder / "app")


def gunicorn(*options: str) -> list[str]:
    return [sys.executable, "-m", "gunicorn", *options, "wsgi:app"]
