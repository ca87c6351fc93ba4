"""Writes the generated parts of the pages anew."""

from __future__ import annotations

from dev.docs.pages import FILES, FOLDER, ROOT, renewed


def main() -> None:
    for path in sorted(FOLDER.glob("*.md")):
        text = path.read_text()
        if (new := renewed(text)) != text:
            path.write_text(new)
            print(f"Renewed docs/{path.name}")
    for name, write in FILES.items():
        path = ROOT / name
        if not path.exists() or path.read_text() != write():
            path.write_text(write())
            print(f"Renewed {name}")


if __name__ == "__main__":
    main()
