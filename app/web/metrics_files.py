"""The files in which workers share their metrics; those of ended workers are folded."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import struct
import time
from collections.abc import Container, Iterable, Iterator
from pathlib import Path

from prometheus_client import Metric
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector

log = logging.getLogger(__name__)

# prometheus_client's own variable
FOLDER = "PROMETHEUS_MULTIPROC_DIR"

LOCK_SECONDS = 1.0
POLL_SECONDS = 0.005
ENDED = "ended"
OF_PROCESS = re.compile(r"(?P<kind>[a-z]+)(_[a-z]+)?_(?P<pid>[0-9]+)\.[a-z]+")


def folder() -> Path | None:
    """Where the workers' metrics meet; None where there is one process."""
    name = os.environ.get(FOLDER)
    return Path(name) if name else None


def merged(folder: Path) -> Iterable[Metric]:
    """All workers' metrics.

    Raises:
        TimeoutError: they are being folded, for a second by now.
    """
    with _locked(folder, fcntl.LOCK_SH):
        files = [str(path) for path in folder.glob("*.db") if not _is_empty(path)]
        metrics: Iterable[Metric] = MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]
    return metrics


@contextlib.contextmanager
def without_readers() -> Iterator[None]:
    """In the block nobody reads the workers' metrics, if readers leave room for it within a
    second: a worker that does not start would end the master."""
    with contextlib.ExitStack() as lock:
        if shared := folder():
            with contextlib.suppress(TimeoutError):
                lock.enter_context(_locked(shared, fcntl.LOCK_EX))
        yield


def make(folder: Path) -> None:
    """Make the folder if it is missing, for this user alone."""
    folder.mkdir(mode=0o700, exist_ok=True)


def fold(folder: Path, living: Container[int]) -> None:
    """Add up what ended workers have counted, and forget their gauges. Otherwise each leaves files
    that every scrape reads.

    Args:
        living: the processes that still count.

    Raises:
        TimeoutError: somebody has been reading for a second; nothing is changed.
        OSError: a file cannot be read or written.
    """
    with _locked(folder, fcntl.LOCK_EX):
        for path in folder.iterdir():
            of_process = OF_PROCESS.fullmatch(path.name)
            if of_process is None or int(of_process["pid"]) in living:
                continue
            kind = of_process["kind"]
            if kind in ("counter", "histogram") and not _is_empty(path):
                _add(path, folder / f"{kind}_{ENDED}.db")
            path.unlink()


def _add(path: Path, to: Path) -> None:
    try:
        # all of it before any of it is added
        counted = list(MmapedDict.read_all_values_from_file(str(path)))  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError, struct.error) as error:
        log.warning("What a worker that was killed has counted is lost (%s): %r", path.name, error)
        return
    total = MmapedDict(str(to))  # type: ignore[no-untyped-call]
    try:
        for key, value, _, _ in counted:
            before, _ = total.read_value(key)  # type: ignore[no-untyped-call]
            total.write_value(key, before + value, 0.0)  # type: ignore[no-untyped-call]
    finally:
        total.close()  # type: ignore[no-untyped-call]


def _is_empty(path: Path) -> bool:
    """Whether a worker has just made it, or was killed as it did. MultiProcessCollector could not
    read it (client_python issue 1199)."""
    return path.stat().st_size == 0


@contextlib.contextmanager
def _locked(folder: Path, kind: int) -> Iterator[None]:
    """Hold the folder's lock: shared to read, exclusive to fold. The system lets go of it where
    the process ends."""
    deadline = time.monotonic() + LOCK_SECONDS
    # a file in it would be of the master's user, who may be another one
    lock = os.open(folder, os.O_RDONLY)
    try:
        while not _takes(lock, kind):
            if time.monotonic() > deadline:
                raise TimeoutError("the metrics are in use")
            time.sleep(POLL_SECONDS)
        yield
    finally:
        os.close(lock)


def _takes(lock: int, kind: int) -> bool:
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
