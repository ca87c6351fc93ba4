"""What /openapi.json says is what is answered, whatever is asked: schemathesis makes it up."""

from __future__ import annotations

import os
import subprocess
import sys

import hypothesis
import pytest

from tests.support import models
from tests.support.processes import ROOT, Program
from tests.support.waiting import eventually

# a service that does not know the state says 503; and no schema can say that a partition is none
# of the topic's, nor which tensors the model takes, of which it would warn
CONFIG = """
warnings = false
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", 503]
[checks.positive_data_acceptance]
expected-statuses = ["2xx", 304, 400, 503]
[parameters]
name = "m"
version = "1"
"""


@pytest.fixture
def keeps_its_word(tmp_path):
    (tmp_path / "schemathesis.toml").write_text(CONFIG)

    def ask(program: Program, *options: str, examples: int) -> None:
        examples = examples * hypothesis.settings().max_examples // 100
        command = [
            sys.executable,
            "-m",
            "schemathesis.cli",
            "run",
            f"http://127.0.0.1:{program.port}/openapi.json",
        ]
        command += ["--generation-deterministic", "--continue-on-failure", "--no-color"]
        # no operation has a link to another, which the phase `stateful` would follow
        command += ["--phases", "examples,coverage,fuzzing"]
        # it has no end
        command += ["--exclude-path", "/state/stream", "--request-timeout", "10", *options]
        command += ["--max-examples", str(examples)]
        # where it finds what it has once computed of Unicode
        environ = {**os.environ, "HYPOTHESIS_STORAGE_DIRECTORY": str(ROOT / ".hypothesis")}
        asked = subprocess.run(
            command,
            check=False,
            cwd=tmp_path,
            env=environ,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert asked.returncode == 0, asked.stdout + asked.stderr
        assert "No issues found" in asked.stdout, asked.stdout

    return ask


# the example of a min_offset in the description is 0:41
MESSAGES = range(42)


def test_while_nobody_may_wait(topic, serving, keeps_its_word):
    topic.send_state(*MESSAGES)
    with serving(STATE_MAX_WAITING="0") as program:
        program.comes_to(MESSAGES[-1])
        keeps_its_word(program, examples=200)


def test_while_everybody_waits(topic, serving, keeps_its_word):
    topic.send_state(*MESSAGES)
    with serving() as program:
        program.comes_to(MESSAGES[-1])
        options = ["--include-path", "/state", "--header", "Prefer: wait=1"]
        keeps_its_word(program, *options, examples=20)


def test_while_the_state_is_not_known(serving, keeps_its_word):
    nowhere = {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    with serving(STATE_MAX_WAITING="0", **nowhere) as program:
        assert eventually(lambda: program.get() is not None)
        assert program.get().status_code == 503
        keeps_its_word(program, examples=50)


def test_with_a_model(topic, serving, keeps_its_word, tmp_path):
    topic.send_state(models.message(models.adding(5)))
    with serving(
        STATE_LOADER="onnx", MODEL_CACHE_DIR=str(tmp_path / "cache"), STATE_MAX_WAITING="0"
    ) as program:
        eventually(lambda: getattr(program.get("/v2/health/ready"), "ok", False))
        keeps_its_word(program, "--include-path-regex", "^/v2", examples=20)


def test_with_a_token(topic, serving, keeps_its_word):
    topic.send_state(*MESSAGES)
    with serving(API_TOKEN="secret-of-many-letters", STATE_MAX_WAITING="0") as program:
        eventually(lambda: getattr(program.get("/readyz"), "ok", False))
        header = "Authorization: Bearer secret-of-many-letters"
        keeps_its_word(program, "--header", header, examples=50)
