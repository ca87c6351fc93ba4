"""Finds the loader that `STATE_LOADER` names."""

from __future__ import annotations

import inspect
from typing import Any

from app.loaders.protocol import Loader
from app.message import StateMessage
from app.settings import Settings, SettingsError
from app.settings.dotted_path import not_accepted, resolve

ACCEPTED = "accepted is the dotted path of a callable that takes a message"


def find_loader(settings: Settings) -> Loader:
    """Give the loader that `STATE_LOADER` names.

    A class is instantiated, once and without arguments.

    Raises:
        SettingsError: there is none of that name, or it cannot be called with a message.
        Exception: whatever importing its module raises.
    """
    if settings.loader == "json":
        return load_json
    if settings.model:
        # its packages come with the extra `onnx` only
        from app.model.loader import OnnxLoader

        return OnnxLoader(settings.model)
    found = resolve("STATE_LOADER", settings.loader, ACCEPTED)
    if inspect.isclass(found):
        if not any("__call__" in base.__dict__ for base in found.__mro__):
            raise _refused(settings.loader, "that is a class without __call__")
        found = found()
    _require_callable_with_a_message(found, settings.loader)
    loader: Loader = found
    return loader


def _require_callable_with_a_message(found: Any, path: str) -> None:
    if not callable(found):
        raise _refused(path, f"that is a {type(found).__name__}")
    if any(map(inspect.iscoroutinefunction, (found, found.__call__))):
        raise _refused(path, "that is async, and the service is made of threads")
    try:
        signature = inspect.signature(found)
    except ValueError:  # of some builtins none is known
        return
    try:
        signature.bind(None)
    except TypeError as error:
        raise _refused(path, f"that cannot be called with a message only: {error}") from error


def _refused(path: str, reason: str) -> SettingsError:
    return not_accepted("STATE_LOADER", path, ACCEPTED, reason)


def load_json(message: StateMessage) -> Any:
    return message.state
