"""Installing packages from a test, and programs that a test needs."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path

import pytest

INSTALL_SECONDS = 300


def pip(python: Path) -> list[str]:
    """The pip that there is, for an environment that may have none of its own."""
    with_pip = sys.executable if importlib.util.find_spec("pip") else "python3"
    return [with_pip, "-m", "pip", "--python", str(python)]


def found_or_skipped(program: str, where: str) -> str:
    """Give the path of a program, beside this Python or on PATH. The test is skipped where it is not.

    Args:
        where: it is to be had, for the reason of the skip.
    """
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    found = shutil.which(program, path=path)
    if not found:
        pytest.skip(f"{program} is not here: it is {where}")
    return found
