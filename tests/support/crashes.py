"""Programs that crash, and what they leave on the disk."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Any

from dev.broker import forwarding
from tests.support.processes import Program, free_port
from tests.support.waiting import eventually

Serve = Callable[..., AbstractContextManager[Program]]

# of the log of a worker that serves what is on the disk
FROM_DISK = "Initializing API with what is on the disk"


class Brokers:
    """Brokers at an address where they are away at times, for whoever connects then."""

    def __init__(self, servers: str) -> None:
        self._servers = servers
        self._way = contextlib.ExitStack()
        self.port = free_port()
        self.come()

    @property
    def address(self) -> str:
        return f"localhost:{self.port}"

    def come(self) -> None:
        self._way.enter_context(forwarding(self.port, self._servers))

    def go(self) -> None:
        self._way.close()


def kept(folder: Path) -> list[Any]:
    """The states that are whole on the disk."""
    states = []
    for path in folder.glob("*.state"):
        with contextlib.suppress(ValueError, IndexError):
            states.append(json.loads(path.read_bytes().split(b"\n", 2)[2])["state"])
    return states


def crash(program: Program) -> None:
    """The master and its workers, at once, as with the machine."""
    processes = program.tree()
    for process in processes:
        process.suspend()
    for process in processes:
        process.kill()
    program.process.wait(10)


@contextlib.contextmanager
def crashed(serving: AbstractContextManager[Program], folder: Path, state: Any) -> Iterator[str]:
    """Let it crash once this state is on the disk; gives the state's ETag."""
    with serving as program:
        program.comes_to(state)
        eventually(lambda: state in kept(folder))
        etag = program.get().headers["ETag"]  # type: ignore[union-attr]
        crash(program)
    yield etag


def reload(program: Program) -> None:
    """Return once no worker of before is left."""
    old = set(program.tree()[1:])
    program.process.send_signal(signal.SIGHUP)
    eventually(lambda: old.isdisjoint(new := program.tree()[1:]) and new)


def seconds_to_serve(program: Program, workers: int = 1) -> float:
    """From when a worker began to follow until it served what is on the disk, of so many workers
    the longest; by a log of JSON."""

    def all_serve() -> dict[int, datetime] | None:
        served = _times(program, FROM_DISK)
        return served if len(served) == workers else None

    served = eventually(all_serve)
    assert served
    began = _times(program, "Following as")
    return max((served[pid] - began[pid]).total_seconds() for pid in served)


def _times(program: Program, beginning: str) -> dict[int, datetime]:
    """By process, when it logged a line that begins so."""
    lines = (json.loads(line) for line in program.told if line.endswith("}"))
    return {
        line["pid"]: datetime.fromisoformat(line["timestamp"])
        for line in lines
        if line["message"].startswith(beginning)
    }
