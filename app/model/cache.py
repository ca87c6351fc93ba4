"""Models on the disk, by checksum, for all processes of this machine."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from app.message_errors import InvalidMessage, RetryableError

CHUNK = 2**20
LOCK_POLL_SECONDS = 0.1

Fill = Callable[[BinaryIO], str]
"""Writes a model, and gives the sha256 of what it wrote, in hexadecimal."""
Check = Callable[[Path], None]
"""Raises what speaks against a model whose checksum is right."""

_SHA256 = re.compile("[0-9a-f]{64}")
_OURS = re.compile(rf"({_SHA256.pattern})(\.lock|\.part)?")


def require_checksum(sha256: str, said: str) -> None:
    if sha256 != said:
        raise InvalidMessage("checksum", f"sha256 is {sha256}, the message says {said}")


class Cache:
    """A folder with `<sha256>/model.onnx` for each model, which is alone in its own folder.

    Beside it is `<sha256>.lock`, locked shared by who reads the model and exclusively by who makes
    or removes it, and `<sha256>.part` while it is fetched. When a process is killed, the kernel
    releases its locks.
    """

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self._folder = folder
        self._most_bytes = most_bytes

    @contextmanager
    def holding(
        self,
        sha256: str,
        fill: Fill,
        check: Check,
        checkpoint: Callable[[], None],
    ) -> Iterator[Path]:
        """Have the model's path for as long as the context lasts; its checksum is verified.

        Where it is not there, `fill` writes it, and it is kept if `check` has nothing against it;
        meanwhile other processes wait for it. At the end the least recently used are removed until
        the others fit in `most_bytes`; one that is held stays.

        Raises:
            InvalidMessage: with reason `checksum`, or what `fill` and `check` say.
            RetryableError: with reason `disk`, or what `fill` and `check` say.
        """
        if not _SHA256.fullmatch(sha256):
            accepted = "accepted are 64 hexadecimal digits, in lower case"
            raise InvalidMessage("checksum", f"sha256 is {sha256[:80]!a}: {accepted}")
        try:
            try:
                lock = self._found_or_made(sha256, fill, check, checkpoint)
            except OSError as error:
                raise self._cannot_be_used(error) from None
            with lock:
                yield self._model(sha256)
        finally:
            with suppress(OSError):  # the next one tries again
                self._remove_surplus()

    def has(self, sha256: str) -> bool:
        """Whether it is there, as far as its name says.

        Raises:
            RetryableError: with reason `disk`.
        """
        try:
            self._model(sha256).stat()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise self._cannot_be_used(error) from None
        return True

    def note_use(self, sha256: str) -> None:
        """Have it removed after those that were used before now, if it is there."""
        with suppress(OSError):
            os.utime(self._model(sha256))

    def _cannot_be_used(self, error: OSError) -> RetryableError:
        return RetryableError("disk", f"{self._folder}: {error.strerror or type(error).__name__}")

    def _found_or_made(
        self, sha256: str, fill: Fill, check: Check, checkpoint: Callable[[], None]
    ) -> ExitStack:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with ExitStack() as lock:
            lock.enter_context(self._locked(sha256, fcntl.LOCK_SH, checkpoint))
            if self._is_good(sha256, checkpoint):
                os.utime(self._model(sha256))
                return lock.pop_all()
        with ExitStack() as lock:
            # kept while the model is held: were it made a shared one, another process could remove
            # the model in between
            lock.enter_context(self._locked(sha256, fcntl.LOCK_EX, checkpoint))
            # another process may have been first
            if not self._is_good(sha256, checkpoint):
                self._make(sha256, fill, check)
            return lock.pop_all()

    def _make(self, sha256: str, fill: Fill, check: Check) -> None:
        part, model = self._part(sha256), self._model(sha256)
        with part.open("wb") as file:
            written = fill(file)
        require_checksum(written, sha256)
        check(part)
        model.parent.mkdir(mode=0o700, exist_ok=True)
        os.replace(part, model)

    def _is_good(self, sha256: str, checkpoint: Callable[[], None]) -> bool:
        found = hashlib.sha256()
        try:
            with self._model(sha256).open("rb", buffering=0) as file:
                while chunk := file.read(CHUNK):
                    found.update(chunk)
                    checkpoint()
        except FileNotFoundError:
            return False
        return found.hexdigest() == sha256

    def _remove_surplus(self) -> None:
        names = map(_OURS.fullmatch, os.listdir(self._folder))
        found = sorted((*self._use(sha256), sha256) for sha256 in {m[1] for m in names if m})
        surplus = sum(size for _, size, _ in found) - self._most_bytes
        for used, size, sha256 in found:
            if surplus <= 0 and used and not self._part(sha256).exists():
                continue
            with suppress(OSError):  # one that cannot be removed keeps no other
                if self._remove(sha256, is_surplus=surplus > 0):
                    surplus -= size

    def _remove(self, sha256: str, *, is_surplus: bool) -> bool:
        """Remove what failed, or was killed, and the model if it is surplus and nobody holds it;
        gives whether it is gone."""
        lock = _lock(self._lock_file(sha256), fcntl.LOCK_EX)
        if lock is None:
            return False
        try:
            self._part(sha256).unlink(missing_ok=True)
            if not is_surplus and self._model(sha256).exists():
                return False
            shutil.rmtree(self._model(sha256).parent, ignore_errors=True)
            self._lock_file(sha256).unlink()
            return True
        finally:
            os.close(lock)

    def _use(self, sha256: str) -> tuple[float, int]:
        """When a model was last used, and its size; zero where it cannot be read."""
        try:
            status = self._model(sha256).stat()
        except OSError:  # or another user's
            return 0.0, 0
        return status.st_mtime, status.st_size

    @contextmanager
    def _locked(self, sha256: str, kind: int, checkpoint: Callable[[], None]) -> Iterator[None]:
        while (lock := _lock(self._lock_file(sha256), kind)) is None:
            checkpoint()
            time.sleep(LOCK_POLL_SECONDS)
        try:
            yield
        finally:
            os.close(lock)

    def _model(self, sha256: str) -> Path:
        return self._folder / sha256 / "model.onnx"

    def _part(self, sha256: str) -> Path:
        return self._folder / f"{sha256}.part"

    def _lock_file(self, sha256: str) -> Path:
        return self._folder / f"{sha256}.lock"


def _lock(path: Path, kind: int) -> int | None:
    """Give a descriptor that holds the lock until it is closed, or None where it is not free."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
        if os.fstat(lock).st_nlink:  # or who had the lock has removed the file
            return lock
    except BlockingIOError:
        pass
    except BaseException:
        os.close(lock)
        raise
    os.close(lock)
    return None
