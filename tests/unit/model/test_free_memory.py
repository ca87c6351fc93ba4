"""How much memory is left, as the kernel's files tell it."""

from __future__ import annotations

import psutil
import pytest

from app.model.free_memory import free_memory

GIB = 2**30
MIB = 2**20


@pytest.fixture
def system(tmp_path):
    """The files of a machine with 8 GiB left, in which control groups can be made."""

    def write(path: str, text: str) -> None:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    write("proc/meminfo", "MemTotal:       16777216 kB\nMemAvailable:    8388608 kB\n")
    write.root = tmp_path
    return write


def group(system, path: str, most: str, used: int, cached: int = 0) -> None:
    folder = f"sys/fs/cgroup{path}"
    system(f"{folder}/memory.max", f"{most}\n")
    system(f"{folder}/memory.current", f"{used}\n")
    system(f"{folder}/memory.stat", f"anon 17\ninactive_file {cached}\nactive_file 4711\n")


def test_it_is_that_of_this_machine():
    free = free_memory()
    assert 0 < free <= psutil.virtual_memory().total


def test_without_control_groups_it_is_the_machines(system):
    assert free_memory(system.root) == 8 * GIB


def test_it_is_what_the_container_has_left_and_what_it_would_drop(system):
    system("proc/self/cgroup", "0::/\n")
    group(system, "/", str(512 * MIB), 400 * MIB, cached=100 * MIB)
    assert free_memory(system.root) == 212 * MIB


def test_the_narrowest_of_all_groups_around_counts(system):
    system("proc/self/cgroup", "12:pids:/x\n0::/kubepods/pod7/one\n")
    group(system, "/kubepods", str(4 * GIB), GIB)
    group(system, "/kubepods/pod7", str(GIB), 900 * MIB)
    group(system, "/kubepods/pod7/one", "max", 900 * MIB)
    assert free_memory(system.root) == 124 * MIB


def test_a_group_that_has_taken_more_than_it_may_has_nothing_left(system):
    system("proc/self/cgroup", "0::/a\n")
    group(system, "/a", str(GIB), GIB + 4096)
    assert free_memory(system.root) == 0


def test_where_the_system_does_not_say_it_is_not_known(tmp_path):
    assert free_memory(tmp_path) is None
