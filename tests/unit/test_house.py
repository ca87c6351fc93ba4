"""The docs show the rooms that there are, and a commit is checked by what make lint runs."""

from __future__ import annotations

import re

import yaml

from tests.support.processes import ROOT

NOT_SHOWN = {"__pycache__", "py.typed"}


def test_the_tree_of_the_docs_is_that_of_the_program():
    tree = re.search(r"```\napp/\n(.*?)```", (ROOT / "docs" / "design.md").read_text(), re.DOTALL)
    assert tree
    shown = {line.split()[0] for line in tree[1].splitlines()}
    rooms = {f"{path.name}/" if path.is_dir() else path.name for path in (ROOT / "app").iterdir()}
    assert shown == rooms - {f"{name}/" for name in NOT_SHOWN} - NOT_SHOWN


def test_the_hook_before_a_commit_runs_make_lint():
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    (hook,) = repository["hooks"]
    assert hook["entry"] == "make lint"
    assert hook["always_run"]
    assert not hook["pass_filenames"]
