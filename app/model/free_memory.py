"""How much memory this machine, and the container on it, have left."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

NO_LIMIT = "max"


def free_memory(root: Path = Path("/")) -> int | None:
    """Give the bytes that can be taken before some process is killed for it; None where the system
    does not say (other than Linux).

    Of control groups those of version 2 count, of the process and all around it
    (https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files).
    """
    try:
        return min(_left(root), default=None)
    except (OSError, KeyError, ValueError):  # it may not be read, or has another form
        return None


def _left(root: Path) -> Iterator[int]:
    meminfo = root / "proc/meminfo"
    if meminfo.exists():
        yield _fields(meminfo)["MemAvailable:"] * 1024
    own = root / "proc/self/cgroup"
    unified = [line for line in _lines(own) if line.startswith("0::/")]
    for line in unified:
        group = Path(line.removeprefix("0::/"))
        for around in (group, *group.parents):
            yield from _left_of_group(root / "sys/fs/cgroup" / around)


def _left_of_group(folder: Path) -> Iterator[int]:
    for line in _lines(folder / "memory.max"):
        if line != NO_LIMIT:
            (used,) = _lines(folder / "memory.current")
            # what files are cached goes when the memory is needed
            cached = _fields(folder / "memory.stat").get("inactive_file", 0)
            yield max(int(line) - int(used) + cached, 0)


def _lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


def _fields(file: Path) -> dict[str, int]:
    return {name: int(number) for name, number, *_ in map(str.split, _lines(file))}
