"""The settings: read from the environment, and checked once at the start."""

from app.settings.environment import SettingsError
from app.settings.settings import Settings, unknown_names

__all__ = ["Settings", "SettingsError", "unknown_names"]
