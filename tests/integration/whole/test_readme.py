"""What the README shows, pasted as it stands."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from tests.support.clients import IS_KAFKA_PYTHON_3
from tests.support.processes import ROOT, free_port, running
from tests.support.waiting import eventually

README = (ROOT / "README.md").read_text()
STREAM_SECONDS = 2

pytestmark = [
    pytest.mark.xdist_group("port 9092"),
    pytest.mark.skipif(
        IS_KAFKA_PYTHON_3, reason="the embedded broker does not answer kafka-python 3"
    ),
    pytest.mark.skipif(not shutil.which("curl"), reason="the README asks with curl"),
]


def section(title: str) -> str:
    return README.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def commands(title: str) -> list[str]:
    """Those after a `$` in a section."""
    blocks = re.findall(r"```console\n(.*?)```", section(title), re.DOTALL)
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]


class Terminal:
    """One shell for all that is pasted; the port 8000 of the README is another one here."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._exports = [f"export PORT={port}"]

    def paste(self, command: str, limit: float = 60) -> str:
        command = command.replace("localhost:8000", f"localhost:{self._port}")
        if command.startswith("export "):
            self._exports.append(command)
        script = "\n".join(["set -e", *self._exports, command])
        done = subprocess.run(
            ["timeout", str(limit), "bash", "-c", script],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode in (0, 124), f"{command}: {done.stderr}"
        return done.stdout


@pytest.fixture
def pasted_first(tmp_path):
    """What the first terminal of a section runs."""

    def run(command: str):
        port = free_port()
        return running(["bash", "-c", command], port, {"PORT": str(port)}, tmp_path / "output")

    return run


def test_the_first_minutes(pasted_first):
    first, *others = commands("Try it")
    assert first == "make run"
    with pasted_first(first) as program:
        program.comes_to(0)
        terminal = Terminal(program.port)
        before, produced, after = (terminal.paste(command) for command in others)
        program.press_ctrl_c()
        program.process.wait(10)
    assert before == '{"state":0}'
    state = re.search(r"'state': (\d+)}", produced)
    assert state
    assert after == f'{{"state":{state[1]}}}'


def test_a_model_and_all_that_is_answered(pasted_first, tmp_path):
    first, *others = commands("A model that swaps itself")
    with pasted_first(first) as program:
        eventually(lambda: program.get("/healthz"), within=60)
        terminal = Terminal(program.port)
        *_, state, inferred = [terminal.paste(command) for command in others]
        assert '"version":"7"' in state
        assert '"data":[9.0]' in inferred
        asked = re.findall(r"`(curl .*?)`", section("What it answers"))
        assert len(asked) > 10
        for command in asked:
            limit = STREAM_SECONDS if "stream" in command or "wait=" in command else 30
            answer = terminal.paste(command.replace(" etag", f" {tmp_path}/etag"), limit)
            assert '"status":404' not in answer
            assert '"status":400' not in answer
        program.press_ctrl_c()
        program.process.wait(10)
