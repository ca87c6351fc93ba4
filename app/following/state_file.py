"""The state as it is on the disk, where a start while no broker answers finds it."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from app.settings import Settings
from app.settings.files import require_writable
from app.topic_log import Record

FORMAT = "kafka-state 1"
# of the topic, in the name of the file, which may have 255 with what is added
SHOWN_CHARACTERS = 100
# what a process that was killed has half written is removed after this time
LEFTOVER_SECONDS = 60.0
# processes that follow the same log are confirmed within this time of each other
SAME_TIME_SECONDS = 1.0


@dataclass(frozen=True)
class Kept:
    """What a state comes from.

    Attributes:
        topic_id: None where the brokers know none.
        record: None for the initial value, which is served while the topic has no valid message.
    """

    topic: str
    topic_id: str | None
    record: Record | None

    @property
    def value(self) -> bytes:
        return (self.record and self.record.value) or b""

    @cached_property
    def head(self) -> bytes:
        """The file's first two lines, the second of which says which message follows."""
        about: dict[str, str | int | None] = {"topic": self.topic, "topic_id": self.topic_id}
        if self.record:
            about["partition"] = self.record.partition
            about["offset"] = self.record.offset
            about["timestamp"] = self.record.timestamp
        line = json.dumps(about).encode() + b"\n"
        return _seal(line, self.value) + line


def _seal(line: bytes, value: bytes) -> bytes:
    """The first line: the checksum of all that comes after it."""
    checksum = hashlib.sha256(line)
    checksum.update(value)
    return f"{FORMAT} {checksum.hexdigest()}\n".encode()


class StateFile:
    """A file for all processes of this machine that follow the same log and load alike.

    It is replaced as a whole, so that who reads it finds one state or the other. When it was last
    changed says until when its state was known to be current, in seconds since the epoch (as_of).
    """

    def __init__(self, folder: Path, settings: Settings) -> None:
        self._topic = settings.topic
        self._folder = folder
        servers = sorted(settings.bootstrap_servers.split(","))
        followed = [settings.topic, servers, settings.isolation_level, settings.loader]
        digest = hashlib.sha256(json.dumps(followed).encode()).hexdigest()[:16]
        self.path = folder / f"{settings.topic[:SHOWN_CHARACTERS]}-{digest}.state"

    def seal(self) -> bytes:
        """The first line, by which two states are told apart; empty where there is no file.

        Raises:
            OSError: it cannot be read.
        """
        try:
            with self.path.open("rb") as file:
                return file.readline(len(FORMAT) + 66)
        except FileNotFoundError:
            return b""

    def read(self) -> tuple[Kept, float]:
        """Give what is kept, and its `as_of`.

        Raises:
            OSError: it cannot be read.
            ValueError: it is not what was written, or of another topic.
        """
        with self.path.open("rb") as file:
            as_of = os.fstat(file.fileno()).st_mtime
            seal, line, value = file.readline(), file.readline(), file.read()
        if seal != _seal(line, value):
            raise ValueError("it is damaged, or of another version: its checksum is wrong")
        about = json.loads(line)
        kept = Kept(about.pop("topic"), about.pop("topic_id"), None)
        if kept.topic != self._topic:
            raise ValueError(f"it is of the topic {kept.topic}")
        if about:
            kept = replace(kept, record=Record(value=value, **about))
        return kept, min(as_of, time.time())  # a time that has yet to come says nothing

    def keep(self, kept: Kept, as_of: float, *, is_new: bool) -> bool:
        """Have the file hold this, and say until when it was known to be current.

        Args:
            is_new: whether this process has not kept it yet. Only then it takes the place of
                another state, or two processes that differ would write in turns.

        Returns:
            False if it is new, but another process knew of another state later than `as_of`.

        Raises:
            OSError: it cannot be written.
        """
        with suppress(FileNotFoundError), self.path.open("rb") as file:
            last = os.fstat(file.fileno()).st_mtime
            is_same = file.read(len(kept.head)) == kept.head
            # once, for what is behind it may be damaged
            if is_same and (not is_new or file.read() == kept.value):
                if not as_of <= last <= time.time():
                    os.utime(file.fileno(), (as_of, as_of))
                return True
            if not is_new:
                return True
            if not is_same and as_of + SAME_TIME_SECONDS < last <= time.time():
                return False
        self._write(kept, as_of)
        return True

    def _write(self, kept: Kept, as_of: float) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, part = tempfile.mkstemp(".part", f"{self.path.name}.", self._folder)
        try:
            with open(descriptor, "wb") as file:
                file.write(kept.head)
                file.write(kept.value)
                file.flush()
                os.utime(descriptor, (as_of, as_of))
                os.fsync(descriptor)
            os.replace(part, self.path)
        except BaseException:
            with suppress(OSError):
                os.unlink(part)
            raise

    def remove_leftovers(self) -> None:
        """Remove what processes that were killed have half written."""
        with suppress(OSError):  # the next start tries again
            for part in self._folder.glob(f"{self.path.name}.*.part"):
                if part.stat().st_mtime < time.time() - LEFTOVER_SECONDS:
                    part.unlink()


def find_state_file(settings: Settings) -> StateFile | None:
    """Give the file that STATE_CACHE_DIR has for what is followed; None where nothing is kept.

    Raises:
        SettingsError: nothing can be kept there.
    """
    if settings.cache_dir is None:
        return None
    require_writable("STATE_CACHE_DIR", settings.cache_dir)
    return StateFile(settings.cache_dir, settings)
