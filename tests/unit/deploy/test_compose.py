"""compose.yaml: Apache Kafka, and the service beside it."""

from __future__ import annotations

import re

import yaml

from app.settings import Settings, unknown_names
from tests.support.deployment import check
from tests.support.processes import ROOT

FILE = ROOT / "compose.yaml"


def _services() -> dict:
    """With the defaults of the variables in it."""
    text = re.sub(r"\$\{\w+:-(.*?)\}", r"\1", FILE.read_text())
    return yaml.safe_load(text)["services"]


def test_it_is_what_compose_reads():
    check("check-jsonschema", "--builtin-schema", "vendor.compose-spec", FILE)


def test_the_service_has_settings_that_make_sense():
    environ = _services()["service"]["environment"]
    assert Settings.from_environ(environ).bootstrap_servers == "kafka:19092"
    assert unknown_names(environ) == []
    advertised = _services()["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    assert "CONTAINERS://kafka:19092" in advertised


def test_the_service_is_what_the_dockerfile_makes_and_can_write_only_to_its_cache():
    service = _services()["service"]
    assert service["build"]["context"] == "."
    assert "dockerfile_inline" not in service["build"]
    assert service["read_only"]
    (volume,) = service["volumes"]
    mounted = volume.partition(":")[2]
    assert service["environment"]["STATE_CACHE_DIR"].startswith(mounted)
