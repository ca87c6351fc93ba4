"""The models that are loaded: the one that is served, and those that were before it."""

from __future__ import annotations

import threading

from app.model.model import Model


class Versions:
    """Keeps models loaded that were served before, of the name that is served now.

    Written by the consumer thread only, read by any. `_lock` guards `_loaded`, which is replaced as
    a whole. A model that is not kept any longer is freed after the last request that uses it.
    """

    def __init__(self, most: int) -> None:
        """
        Args:
            most: how many are kept beside the one that is served.
        """
        self._lock = threading.Lock()
        self._most = most
        self._loaded: tuple[Model, ...] = ()

    @property
    def loaded(self) -> tuple[Model, ...]:
        """The one that is served first, then the one served before it, and so on."""
        with self._lock:
            return self._loaded

    def beside(self, model: Model) -> list[Model]:
        """Those of its name and other versions."""
        return [
            other
            for other in self.loaded
            if other.name == model.name and other.version != model.version
        ]

    def with_checksum(self, sha256: str) -> Model | None:
        return next((m for m in self.loaded if m.representation["sha256"] == sha256), None)

    def serve(self, model: Model) -> None:
        """Note that `model` is served from now on. One of its name and version that was before it
        is not kept, whatever it was."""
        self._replace((model, *self.beside(model)[: self._most]))

    def make_room(self) -> None:
        """Keep so few that with another one they are not more than there may be."""
        self._replace(self.loaded[: max(self._most, 1)])

    def let_go(self) -> list[str]:
        """Keep none, and give the versions of those that were."""
        versions = [model.version for model in self.loaded[1:]]
        self._replace(self.loaded[:1])
        return versions

    def _replace(self, loaded: tuple[Model, ...]) -> None:
        with self._lock:
            # what is let go is freed after the lock is, for that takes time
            before, self._loaded = self._loaded, loaded
        del before
