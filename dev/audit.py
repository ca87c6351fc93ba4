"""`python -m dev.audit` asks pip-audit, on the PATH, for known defects of what is installed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

PINNED = Path(__file__).parent.parent / "constraints-dev.txt"
AUDIT_SECONDS = 300


def main() -> int | str:
    """Give the exit status: 0 also where pip-audit's data cannot be reached, and say so."""
    command = ["pip-audit", "--requirement", str(PINNED), "--no-deps", "--disable-pip"]
    command += ["--format", "json", "--progress-spinner", "off"]
    audit = subprocess.run(
        command, capture_output=True, text=True, timeout=AUDIT_SECONDS, check=False
    )
    try:
        dependencies = json.loads(audit.stdout)["dependencies"]
    except ValueError:
        dependencies = []
    audited = [dependency for dependency in dependencies if "skip_reason" not in dependency]
    if not audited:
        told = dependencies[0]["skip_reason"] if dependencies else audit.stderr.strip()
        print(f"Skipped, for no dependency could be looked up: {told}")
        return 0
    defects = [line for dependency in audited for line in _defects(dependency)]
    print(f"{len(audited)} of {len(dependencies)} dependencies audited")
    return "\n".join(defects) or 0


def _defects(dependency: dict[str, Any]) -> list[str]:
    return [
        f"{dependency['name']} {dependency['version']}: {defect['id']}, "
        f"mended in {', '.join(defect['fix_versions']) or 'no version'}"
        for defect in dependency["vulns"]
    ]


if __name__ == "__main__":
    sys.exit(main())
