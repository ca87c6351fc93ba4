"""What the docs show, pasted as it stands."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.clients import IS_KAFKA_PYTHON_3
from tests.support.docs import section
from tests.support.installation import INSTALL_SECONDS
from tests.support.processes import ROOT, Program, free_port, running
from tests.support.waiting import eventually

# a block of commands that is marked, and may be one that goes on until Ctrl-C
BLOCK = re.compile(
    r"<!-- run(?P<stays>: until the page ends)? -->\n```console\n(?P<text>.*?)```", re.DOTALL
)
START_SECONDS = 60
STREAM_SECONDS = 2

pytestmark = [
    pytest.mark.xdist_group("port 9092"),
    pytest.mark.skipif(
        IS_KAFKA_PYTHON_3, reason="the embedded broker does not answer kafka-python 3"
    ),
    pytest.mark.skipif(not shutil.which("curl"), reason="the docs ask with curl"),
]


class Shown(NamedTuple):
    """A command of a page, and the lines that are shown below it."""

    command: str
    output: list[str]
    stays: bool


def shown_by(page: str) -> Iterator[Shown]:
    for block in BLOCK.finditer((ROOT / page).read_text()):
        for command in block["text"].split("\n$ "):
            first, *output = command.removeprefix("$ ").rstrip("\n").split("\n")
            yield Shown(first, output, bool(block["stays"]))


PAGES = [
    path
    for path in ("README.md", *(f"docs/{path.name}" for path in sorted(ROOT.glob("docs/*.md"))))
    if any(shown_by(path))
]


def pattern_of(output: list[str]) -> str:
    """Digits are alike, and an ellipsis stands for anything."""
    text = re.escape(re.sub("[0-9]+", "0", "\n".join(output)))
    return text.replace("…", "(?s:.*?)")


class Terminal:
    """One shell for all that is pasted; the port 8000 of the docs is another one here."""

    def __init__(self, port: int, folder: Path) -> None:
        self._port = port
        self._folder = folder
        self._exports = [f"export PORT={port}"]

    def paste(self, command: str, limit: float = 60) -> str:
        command = command.replace("localhost:8000", f"localhost:{self._port}")
        if command.startswith("export "):
            self._exports.append(command)
        script = "\n".join(["set -e", *self._exports, command])
        done = subprocess.run(
            ["timeout", str(limit), "bash", "-c", script],
            cwd=self._folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode in (0, 124), f"{command}: {done.stderr}"
        return done.stdout


@contextlib.contextmanager
def pasted(page: str, log: Path, folder: Path = ROOT) -> Iterator[Terminal]:
    """Run all that a page shows, and compare it with what is shown; the first command stays."""
    first, *others = shown_by(page)
    assert first.stays
    port = free_port()
    environ = {"PORT": str(port)}
    with running(["bash", "-c", first.command], port, environ, log, folder) as program:
        eventually(lambda: tells(program, first.output), within=START_SECONDS)
        terminal = Terminal(port, folder)
        for shown in others:
            assert not shown.stays
            told = re.sub("[0-9]+", "0", terminal.paste(shown.command)).rstrip("\n")
            if shown.output:
                assert re.fullmatch(pattern_of(shown.output), told), f"{shown.command}: {told}"
        yield terminal
        program.press_ctrl_c()
        program.process.wait(10)


def tells(program: Program, lines: list[str]) -> bool:
    assert program.process.poll() is None, program.output
    told = re.sub("[0-9]+", "0", program.output)
    return all(re.search(pattern_of([line]), told) for line in lines)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_shows_what_happens(page, tmp_path):
    with pasted(page, tmp_path / "output"):
        pass


@pytest.mark.installs
@pytest.mark.timeout(INSTALL_SECONDS + 60)
def test_the_quickstart_shows_what_happens_in_a_fresh_clone(tmp_path, monkeypatch):
    clone = tmp_path / "clone"
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in files.splitlines():
        if (ROOT / name).exists():  # or it is about to be removed
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, clone / name)
    monkeypatch.setattr(f"{__name__}.START_SECONDS", INSTALL_SECONDS)
    with pasted("docs/quickstart.md", tmp_path / "output", clone):
        assert (clone / ".venv" / "bin" / "kafka-state").exists()


def test_what_is_shown_to_be_asked_is_answered(tmp_path):
    with pasted("docs/models.md", tmp_path / "output") as terminal:
        asked = re.findall(r"`(curl .*?)`", section("http", "What can I ask over HTTP?"))
        assert len(asked) > 10
        for command in asked:
            limit = STREAM_SECONDS if "stream" in command or "wait=" in command else 30
            answer = terminal.paste(command.replace(" etag", f" {tmp_path}/etag"), limit)
            assert '"status":404' not in answer
            assert '"status":400' not in answer
