"""Finds the object that a dotted path names."""

from __future__ import annotations

import pkgutil
from typing import Any

from app.settings.environment import SettingsError


def resolve(variable: str, path: str, accepted: str) -> Any:
    """Give what is at `package.module.name`.

    Args:
        variable: the setting that the path is from.
        accepted: what the setting accepts, for the error.

    Raises:
        SettingsError: there is nothing of that name.
        Exception: whatever importing its module raises.
    """
    names = path.replace(":", ".").split(".")
    try:
        return pkgutil.resolve_name(path)
    except ModuleNotFoundError as error:
        if not f"{'.'.join(names)}.".startswith(f"{error.name}."):
            raise  # the module is there, and imports another that is not
        raise not_accepted(variable, path, accepted, str(error)) from error
    except AttributeError as error:
        if error.name not in names:
            raise
        raise not_accepted(variable, path, accepted, str(error)) from error


def not_accepted(variable: str, path: str, accepted: str, reason: str) -> SettingsError:
    return SettingsError(f"{variable} is {path!r}: {accepted} ({reason})")
