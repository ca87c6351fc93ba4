"""What is made of files that may change under a running service: secrets, certificates, tokens."""

from __future__ import annotations

import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from app.settings.environment import SettingsError

T = TypeVar("T")

log = logging.getLogger(__name__)

# of each file: which one it is, its size, when it was written, and when it was changed otherwise (its
# mode may be); None where it is not there. A link is followed: Kubernetes swaps one
Stamp = tuple[tuple[int, ...] | None, ...]


# no NamedTuple, which Python 3.10 has not with a type of its own
@dataclass(frozen=True)
class _Made(Generic[T]):
    stamp: Stamp
    value: T
    looked_at: float


class Reloaded(Generic[T]):
    """A value that is made of files, and made anew when one of them has changed.

    While what the files hold cannot be used (one of two is written, the other not yet), the value
    from before stays; a line in the log says so.

    For any thread: `_made` is replaced as a whole, by one thread at a time, which has `_making`;
    others go on with the value from before.
    """

    def __init__(
        self,
        what: str,
        files: Sequence[str],
        make: Callable[[], T],
        pause: float = 0.0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            what: names the value in the log.
            make: raises an OSError or ValueError, without secrets, where it cannot be made.
            pause: for how many seconds the files are not looked at again.
            now: a clock that never goes back, in seconds.
        """
        self._what = what
        self._files = files
        self._make = make
        self._pause = pause
        self._now = now
        self._making = threading.Lock()
        self._made: _Made[T] | None = None

    def current(self) -> T:
        """
        Raises:
            OSError, ValueError: it cannot be made, and never could.
        """
        made = self._made
        if made and self._now() - made.looked_at < self._pause:
            return made.value
        if not self._making.acquire(blocking=made is None) and made:
            return made.value
        try:
            return self._look()
        finally:
            self._making.release()

    def _look(self) -> T:
        made, now = self._made, self._now()
        stamp = stamp_of(self._files)
        if made is None:
            value = self._make()
        elif stamp == made.stamp:
            value = made.value
        else:
            value = self._made_anew(made.value)
        self._made = _Made(stamp, value, now)
        return value

    def _made_anew(self, before: T) -> T:
        try:
            value = self._make()
        except (OSError, ValueError) as error:
            log.warning(
                "%s has changed and cannot be used (%s); what was there before still is",
                self._what,
                error,
            )
            return before
        log.info("%s has changed, and is used from now on", self._what)
        return value


def stamp_of(files: Sequence[str]) -> Stamp:
    return tuple(map(_stamp, files))


def _stamp(file: str) -> tuple[int, ...] | None:
    try:
        status = os.stat(file)
    except OSError:
        return None
    changes = status.st_mtime_ns, status.st_ctime_ns
    return status.st_dev, status.st_ino, status.st_size, *changes


def require_writable(variable: str, folder: Path) -> None:
    """Make the folder where it is missing, for its user only.

    Raises:
        SettingsError: nothing can be kept there.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise SettingsError(
            f"{variable} is {str(folder)!r}: accepted is a folder that can be written to "
            f"({error.strerror})"
        ) from error


def read_text(file: str) -> str:
    """Give what a file holds, without the line end that editors put at its end.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no UTF-8; the text does not show what it is.
    """
    try:
        return Path(file).read_text(encoding="utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise ValueError(f"{file} is no UTF-8") from None
