"""Installing packages from a test."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

INSTALL_SECONDS = 300


def pip(python: Path) -> list[str]:
    """The pip that there is, for an environment that may have none of its own."""
    with_pip = sys.executable if importlib.util.find_spec("pip") else "python3"
    return [with_pip, "-m", "pip", "--python", str(python)]
