"""The versions that are installed are those that setup.cfg asks for."""

from __future__ import annotations

import configparser
import re

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from dev.lock import DEVELOPMENT, DEVELOPMENT_PINS, INSTALLER_PINS, RUNTIME_PINS, extras
from tests.support.processes import ROOT

BY_LOCK = "run `make lock`"


def pins(name: str) -> dict[str, set[str]]:
    """The versions of each package; some have others for some Pythons."""
    found: dict[str, set[str]] = {}
    for package, version in re.findall(
        r"^([\w.-]+)==([^ ]+)", (ROOT / name).read_text(), re.MULTILINE
    ):
        found.setdefault(canonicalize_name(package), set()).add(version)
    return found


def asked_for(extras: set[str]) -> list[Requirement]:
    declared = configparser.ConfigParser()
    declared.read(ROOT / "setup.cfg")
    asked = declared["options"]["install_requires"]
    asked += "".join(declared["options.extras_require"][extra] for extra in extras)
    return [Requirement(line) for line in asked.splitlines() if line]


@pytest.mark.parametrize(
    ("name", "extras"),
    [(RUNTIME_PINS, extras() - DEVELOPMENT), (DEVELOPMENT_PINS, extras())],
    ids=[RUNTIME_PINS, DEVELOPMENT_PINS],
)
def test_all_that_is_asked_for_is_pinned(name, extras):
    pinned = pins(name)
    for asked in asked_for(extras):
        if asked.name == "kafka-state":
            continue
        versions = pinned.get(canonicalize_name(asked.name), set())
        assert versions, f"{name} has no {asked.name}: {BY_LOCK}"
        assert all(map(asked.specifier.contains, versions)), f"{asked} is not {versions}: {BY_LOCK}"


def test_what_runs_in_production_has_nothing_of_development_and_is_tested_as_it_is():
    runtime, development = pins(RUNTIME_PINS), pins(DEVELOPMENT_PINS)
    assert "pytest" not in runtime
    assert {package: development[package] for package in runtime} == runtime


@pytest.mark.parametrize("name", [RUNTIME_PINS, DEVELOPMENT_PINS, INSTALLER_PINS])
def test_each_has_its_hashes_and_no_index(name):
    text = (ROOT / name).read_text()
    lines = re.findall(r"^\w.*\n.*", text, re.MULTILINE)
    assert lines
    assert [line for line in lines if "\n    --hash=sha256:" not in line] == []
    assert "://" not in text
