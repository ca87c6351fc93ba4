"""The loader that `STATE_LOADER` names."""

from __future__ import annotations

import pkgutil
from typing import Any

from app.environment import SettingsError
from app.loading import Loader, StateMessage
from app.settings import Settings


def find_loader(settings: Settings) -> Loader:
    """Give the loader that `STATE_LOADER` names.

    Raises:
        SettingsError: there is none of that name.
    """
    if settings.loader == "json":
        return load_json
    if settings.model:
        # what it needs is there in this case only
        from app.model.loader import OnnxLoader

        return OnnxLoader(settings.model)
    try:
        loader = pkgutil.resolve_name(settings.loader)
    except (ImportError, AttributeError) as error:
        raise SettingsError(
            f"STATE_LOADER is {settings.loader!r}: accepted is the dotted path of a callable "
            f"({error})"
        ) from error
    if not callable(loader):
        raise SettingsError(
            f"STATE_LOADER is {settings.loader!r}: accepted is the dotted path of a callable, "
            f"and that is a {type(loader).__name__}"
        )
    found: Loader = loader
    return found


def load_json(message: StateMessage) -> Any:
    return message.state
