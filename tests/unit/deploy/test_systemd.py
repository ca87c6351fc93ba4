"""The unit for systemd, as systemd-analyze sees it."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

import pytest

from app.settings import Settings, unknown_names
from tests.support.deployment import DEPLOY, check, gunicorn_setting

UNIT = DEPLOY / "systemd/kafka-state.service"
SECRETS = DEPLOY / "systemd/secrets.conf"
# what it is now, of 10 (systemd 252)
EXPOSURE = 1.4


@pytest.fixture
def unit(tmp_path) -> Path:
    """The unit and what comes to it, with a program that is there."""
    file = tmp_path / UNIT.name
    file.write_text(UNIT.read_text().replace("/opt/kafka-state/bin/kafka-state", "/bin/true"))
    additions = tmp_path / f"{UNIT.name}.d"
    additions.mkdir()
    (additions / SECRETS.name).write_text(SECRETS.read_text())
    return file


def test_systemd_has_nothing_to_say(unit):
    assert check("systemd-analyze", "verify", unit, package="systemd") == ""


def test_it_is_no_more_exposed_than_it_was(unit):
    told = check("systemd-analyze", "security", "--offline=true", unit, package="systemd")
    (exposure,) = re.findall(r"Overall exposure level for .*: (\d+\.\d)", told)
    assert float(exposure) <= EXPOSURE


def test_a_stop_has_the_time_that_it_takes():
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.read_string(UNIT.read_text())
    assert int(parser["Service"]["TimeoutStopSec"]) > gunicorn_setting("graceful_timeout") + 1


def test_the_settings_make_sense(tmp_path):
    (tmp_path / "kafka-password").write_text("a-password")
    (tmp_path / "api-token").write_text("a-token-of-16-letters")
    lines = (DEPLOY / "systemd/environment").read_text().splitlines()
    pairs = [line for line in lines if line and not line.startswith("#")]
    for file in (UNIT, SECRETS):
        pairs += re.findall(r"^Environment=(.*)$", file.read_text(), re.MULTILINE)
    environ = dict(pair.split("=", 1) for pair in pairs)
    # as systemd does it
    folders = {"%d": str(tmp_path), "%t": "/run", "%C": "/var/cache", "%S": "/var/lib"}
    for sign, folder in folders.items():
        environ = {name: value.replace(sign, folder) for name, value in environ.items()}
    settings = Settings.from_environ(environ)
    assert settings.security.protocol == "SASL_SSL"
    assert settings.cache_dir == Path("/var/lib/kafka-state")
    assert unknown_names(environ) == []


def test_each_secret_that_is_named_is_handed_over():
    text = SECRETS.read_text()
    handed = set(re.findall(r"^LoadCredential=([\w-]+):", text, re.MULTILINE))
    named = set(re.findall(r"^Environment=\w+=%d/([\w-]+)$", text, re.MULTILINE))
    assert named == handed != set()
