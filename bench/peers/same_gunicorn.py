"""For gunicorn's --config: the service's settings, without the hooks that need the service."""

from __future__ import annotations

import runpy
from pathlib import Path

from gunicorn.config import KNOWN_SETTINGS

ITS_OWN = runpy.run_path(str(Path(__file__).parents[2] / "gunicorn.conf.py"))
NAMES = {setting.name for setting in KNOWN_SETTINGS}

globals().update(
    {name: value for name, value in ITS_OWN.items() if name in NAMES and not callable(value)}
)
