"""What the Dockerfile says; tests/integration/deploy/test_image.py builds and runs it."""

from __future__ import annotations

import fnmatch

from tests.support.deployment import check, dockerfile
from tests.support.processes import ROOT


def _arguments(keyword: str) -> list[str]:
    return [line.arguments for line in dockerfile() if line.keyword == keyword]


def test_a_linter_has_nothing_to_say():
    check("hadolint", ROOT / "Dockerfile")


def test_each_stage_begins_with_a_version_that_is_named():
    tags = [image.split()[0].partition(":")[2] for image in _arguments("FROM")]
    assert len(tags) == 2
    assert "" not in tags
    assert "latest" not in tags


def test_who_serves_is_a_number_that_is_not_root():
    assert [user.isdigit() and int(user) > 0 for user in _arguments("USER")] == [True]


def test_no_shell_stands_between_a_signal_and_the_program():
    commands = [line.command for line in dockerfile() if line.keyword in ("ENTRYPOINT", "CMD")]
    assert commands == [["kafka-state"], ["serve"]]


def test_health_is_asked_for_without_a_shell_or_another_program():
    (line,) = [line for line in dockerfile() if line.keyword == "HEALTHCHECK"]
    program, *_, script = line.command
    assert program == "python3"
    compile(script, "HEALTHCHECK", "exec")
    assert "/healthz" in script


def test_what_is_copied_is_there_and_is_sent_to_the_builder():
    copied = [names.split()[:-1] for names in _arguments("COPY") if not names.startswith("--")]
    names = [name for line in copied for name in line]
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in lines
    sent = [line.removeprefix("!") for line in lines if line.startswith("!")]
    assert sorted(names) == sorted(sent)
    assert all((ROOT / name).exists() for name in names)
    assert not any(fnmatch.fnmatch(name, "tests*") for name in names)
