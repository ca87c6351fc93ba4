from __future__ import annotations

import dataclasses
import os
import resource
import stat
import threading
import time
from pathlib import Path

import pytest

from app.following.state_file import Kept, StateFile, find_state_file
from app.settings import Settings, SettingsError
from app.topic_log import Record

TOPIC = "models"
KEPT = Kept(TOPIC, "some-id", Record(3, 17, 1_700_000_000_123, b'{"state":\n"\xc3\xa9"}'))
OTHER = dataclasses.replace(KEPT, record=Record(3, 18, 1_700_000_000_124, b'{"state":2}'))
INITIAL = Kept(TOPIC, "some-id", None)
AS_OF = 1_700_000_000.0


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "some" / "folder"


def file_of(folder: Path, topic: str = TOPIC, **settings: str) -> StateFile:
    return StateFile(folder, Settings(topic=topic, **settings))


@pytest.fixture
def file(folder) -> StateFile:
    return file_of(folder)


def keep(file: StateFile, kept: Kept, as_of: float = AS_OF, is_new: bool = True) -> bool:
    return file.keep(kept, as_of, is_new=is_new)


@pytest.mark.parametrize("kept", [KEPT, dataclasses.replace(KEPT, topic_id=None), INITIAL])
def test_is_read_as_it_was_written(file, kept):
    assert keep(file, kept)
    assert file.read() == (kept, AS_OF)
    assert file.read()[0].head == kept.head


def test_is_for_one_user_in_a_folder_that_is_made(file, folder):
    keep(file, KEPT)
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert list(folder.iterdir()) == [file.path]


@pytest.mark.parametrize("kept", [KEPT, INITIAL])
def test_what_was_cut_off_anywhere_is_refused(file, kept):
    keep(file, kept)
    whole = file.path.read_bytes()
    for length in range(len(whole)):
        file.path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="damaged"):
            file.read()


def test_what_has_a_wrong_bit_anywhere_is_refused(file):
    keep(file, KEPT)
    whole = file.path.read_bytes()
    for index in range(len(whole)):
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[index] ^= 1 << bit
            file.path.write_bytes(damaged)
            with pytest.raises(ValueError, match="damaged"):
                file.read()


def test_what_has_something_behind_it_is_refused(file):
    keep(file, INITIAL)
    file.path.write_bytes(file.path.read_bytes() + b"\0")
    with pytest.raises(ValueError, match="damaged"):
        file.read()


def test_what_is_of_another_topic_is_refused(file, folder):
    other = file_of(folder, "others")
    keep(other, dataclasses.replace(KEPT, topic="others"))
    other.path.rename(file.path)
    with pytest.raises(ValueError, match="it is of the topic others"):
        file.read()


def test_a_folder_in_its_place_is_an_error_to_read_and_to_write(file):
    file.path.mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        file.read()
    with pytest.raises(OSError, match="directory"):
        keep(file, KEPT)
    assert list(file.path.parent.iterdir()) == [file.path]


def test_a_time_that_has_yet_to_come_counts_as_now(file):
    keep(file, KEPT)
    os.utime(file.path, (2 * time.time(), 2 * time.time()))
    assert time.time() - 60 < file.read()[1] <= time.time()


# ---- which file


def test_services_of_other_clusters_topics_and_loaders_have_files_of_their_own(folder):
    alike = {"bootstrap_servers": "a:1,b:2"}
    names = [
        file_of(folder, **{**alike, **settings}).path.name
        for settings in (
            {},
            {"topic": "models2"},
            {"topic": "m" * 249},
            {"topic": "m" * 248 + "x"},
            {"bootstrap_servers": "a:1,b:3"},
            {"isolation_level": "READ_UNCOMMITTED"},
            {"loader": "onnx"},
        )
    ]
    assert len(set(names)) == len(names)
    assert max(map(len, names)) < 200
    assert names[0].startswith("models-")


def test_the_order_of_the_brokers_does_not_matter(folder):
    one, other = (file_of(folder, bootstrap_servers=servers) for servers in ("a:1,b:2", "b:2,a:1"))
    assert one.path == other.path


# ---- when it is written


def test_the_same_is_not_written_again_but_said_to_be_current(file):
    keep(file, KEPT)
    inode = file.path.stat().st_ino
    keep(file_of(file.path.parent), KEPT, AS_OF + 7)
    assert file.path.stat().st_ino == inode
    assert file.read() == (KEPT, AS_OF + 7)


def test_what_is_current_does_not_become_older_by_who_knows_less(file):
    keep(file, KEPT, AS_OF + 7)
    keep(file, KEPT, AS_OF)
    assert file.read()[1] == AS_OF + 7


def test_a_time_that_has_yet_to_come_is_corrected(file):
    keep(file, KEPT, 2 * time.time())
    keep(file, KEPT, AS_OF)
    assert file.read()[1] == AS_OF


def test_a_new_state_takes_the_place_of_another(file):
    keep(file, KEPT)
    assert keep(file, OTHER)
    assert file.read()[0] == OTHER


def test_does_not_take_the_place_of_what_was_known_to_be_current_later(file):
    """A process that was busy for long, or was frozen."""
    keep(file, KEPT, AS_OF + 7)
    assert not keep(file, OTHER, AS_OF)
    assert file.read() == (KEPT, AS_OF + 7)
    assert keep(file, OTHER, AS_OF + 7)
    assert file.read()[0] == OTHER


def test_processes_that_differ_do_not_write_in_turns(file):
    keep(file, KEPT)
    keep(file, OTHER)
    assert keep(file, KEPT, AS_OF + 1, is_new=False)
    assert file.read() == (OTHER, AS_OF)


def test_what_somebody_has_removed_is_written_again(file, folder):
    keep(file, KEPT)
    file.path.unlink()
    keep(file, KEPT, is_new=False)
    assert file.read()[0] == KEPT
    file.path.unlink()
    folder.rmdir()
    keep(file, KEPT, is_new=False)
    assert file.read()[0] == KEPT


def test_what_is_damaged_gives_way_to_a_new_state(file):
    keep(file, KEPT)
    for damaged in (b"", KEPT.head, file.path.read_bytes()[:-1] + b"]"):
        file.path.write_bytes(damaged)
        keep(file, KEPT, time.time())
        assert file.read()[0] == KEPT


def test_a_full_disk_leaves_what_was_there_and_nothing_else(file, folder):
    keep(file, KEPT)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(OTHER.head), limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            keep(file, OTHER)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(folder.iterdir()) == [file.path]
    assert file.read() == (KEPT, AS_OF)


def test_what_a_killed_process_has_half_written_is_removed_after_a_minute(file, folder):
    keep(file, KEPT)
    left, new, other = (
        folder / name
        for name in (f"{file.path.name}.x.part", f"{file.path.name}.y.part", "mine.part")
    )
    for path in (left, new, other):
        path.write_bytes(b"half")
    for path in (left, other):
        os.utime(path, (AS_OF, AS_OF))
    file.remove_leftovers()
    assert sorted(folder.iterdir()) == sorted([file.path, new, other])


def test_who_reads_finds_a_whole_one_whoever_writes(file):
    many = [dataclasses.replace(KEPT, record=Record(0, n, n, bytes([n]) * 2**17)) for n in range(4)]
    keep(file, many[0])
    is_over = threading.Event()

    def write(kept: Kept) -> None:
        while not is_over.is_set():
            keep(file_of(file.path.parent), kept)

    writers = [threading.Thread(target=write, args=[kept]) for kept in many]
    for writer in writers:
        writer.start()
    try:
        found = [file.read()[0] for _ in range(200)]
    finally:
        is_over.set()
        for writer in writers:
            writer.join()
    assert all(kept in many for kept in found)
    assert list(file.path.parent.iterdir()) == [file.path]


# ---- the setting


def test_nothing_is_kept_unless_it_is_set():
    assert (
        find_state_file(Settings.from_environ({"KAFKA_TOPIC": "t", "STATE_CACHE_DIR": ""})) is None
    )


def test_a_folder_that_cannot_be_written_to_ends_the_start(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    folder = str(tmp_path / "file" / "folder")
    settings = Settings.from_environ({"KAFKA_TOPIC": "t", "STATE_CACHE_DIR": folder})
    with pytest.raises(SettingsError) as raised:
        find_state_file(settings)
    assert str(raised.value) == (
        f"STATE_CACHE_DIR is {folder!r}: accepted is a folder that can be written to "
        "(Not a directory)"
    )
