"""`python -m dev.lock` writes which versions are installed, with their hashes, by what setup.cfg asks for.

A version that is pinned already stays; with `--upgrade` all of them are the newest that go together.
"""

from __future__ import annotations

import configparser
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
# what nobody who only runs the service installs
DEVELOPMENT = {"demo", "deploy", "dev", "docs", "embedded-broker", "envoy"}
RUNTIME_PINS = "constraints.txt"
DEVELOPMENT_PINS = "constraints-dev.txt"
# the oldest that setup.cfg says will do
LOWEST_PINS = "constraints-lowest.txt"
# what installs by the others
INSTALLER_PINS = "uv-requirements.txt"
LOCK_SECONDS = 600


def extras() -> set[str]:
    """The extras that setup.cfg has."""
    declared = configparser.ConfigParser()
    declared.read(ROOT / "setup.cfg")
    return set(declared["options.extras_require"])


def main(options: list[str]) -> None:
    """
    Raises:
        subprocess.CalledProcessError: uv found no versions that go together, and said so.
    """
    runtime = [f"--extra={extra}" for extra in sorted(extras() - DEVELOPMENT)]
    _compile("setup.cfg", RUNTIME_PINS, *runtime, *options)
    # the same versions of what both have
    _compile(
        "setup.cfg", DEVELOPMENT_PINS, "--all-extras", f"--constraint={RUNTIME_PINS}", *options
    )
    lowest = [*runtime, "--extra=embedded-broker", "--resolution=lowest-direct"]
    _compile("setup.cfg", LOWEST_PINS, *lowest, *options)
    _compile("-", INSTALLER_PINS, *options, given="uv")


def _compile(source: str, pins: str, *options: str, given: str = "") -> None:
    command = ["uv", "pip", "compile", source, *options, "--quiet", "--output-file", pins]
    # for every Python from the oldest on, and every system
    command += ["--universal", "--python-version=3.10", "--generate-hashes"]
    command += ["--no-annotate", "--no-emit-index-url", "--custom-compile-command=make lock"]
    subprocess.run(command, input=given, text=True, cwd=ROOT, timeout=LOCK_SECONDS, check=True)


if __name__ == "__main__":
    main(sys.argv[1:])
