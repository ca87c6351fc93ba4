"""`python -m dev.docs write` renews what is generated; `check` ends with 1 where that is needed."""

from __future__ import annotations

import argparse

from dev.docs.generated import GENERATED


def main() -> str | None:
    """Give what is to be done, if something is."""
    parser = argparse.ArgumentParser(prog="python -m dev.docs", description=__doc__)
    parser.add_argument("command", choices=["write", "check"])
    command = parser.parse_args().command
    outdated = [generated for generated in GENERATED if not generated.is_current()]
    if command == "check":
        paths = ", ".join(generated.path for generated in outdated)
        return f"Outdated: {paths}. Run `python -m dev.docs write`." if outdated else None
    for generated in outdated:
        generated.file.write_text(generated.renewed(), encoding="utf-8")
        print(f"Wrote {generated.path}")
    return None


if __name__ == "__main__":
    raise SystemExit(main())
