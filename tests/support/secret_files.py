"""Files that change as Kubernetes changes those of a Secret: all of them at once."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from uuid import uuid4


class SecretFiles:
    """A folder as a container has it mounted.

    Each file is a link to one in `..data`, which is a link to a folder that is never written to
    again: a change is another folder, to which `..data` points from one moment to the next.
    """

    def __init__(self, folder: Path, files: Mapping[str, bytes | str]) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self._data = folder / "..data"
        self._files: dict[str, bytes | str] = {}
        self.change(files)

    def path(self, name: str) -> Path:
        return self._folder / name

    def change(self, files: Mapping[str, bytes | str]) -> None:
        """Replace these, and leave the others as they are."""
        self._files |= files
        before = self._data.resolve() if self._data.exists() else None
        after = self._folder / f"..{uuid4().hex}"
        after.mkdir()
        for name, content in self._files.items():
            written = content if isinstance(content, bytes) else content.encode()
            (after / name).write_bytes(written)
        link = self._folder / "..data_tmp"
        link.symlink_to(after.name)
        link.replace(self._data)
        for name in files:
            if not self.path(name).is_symlink():
                self.path(name).symlink_to(f"..data/{name}")
        if before:
            shutil.rmtree(before)
